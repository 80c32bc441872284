"""What a client is told when its request cannot be answered: a status, one line, and no path of this machine."""

from __future__ import annotations

from clip_toolkit.errors import ClipToolkitError, ImageError, TextError, TransientImageError

BAD_REQUEST, UNAUTHORISED, FORBIDDEN, NOT_FOUND, TOO_SLOW, TOO_LARGE = 400, 401, 403, 404, 408, 413
WRONG_TYPE, UNPROCESSABLE, BUSY, FAILED, UNAVAILABLE = 415, 422, 429, 500, 503

RETRY_SECONDS = 1
"""What ``Retry-After`` says: a full queue moves on within a fraction of it."""


class RequestError(ClipToolkitError):
    """A request that is refused.

    Attributes:
        status: of the HTTP response.
    """

    def __init__(self, message: str, status: int = BAD_REQUEST) -> None:
        """Take what the client is told."""
        super().__init__(message)
        self.status = status


def told(error: Exception) -> tuple[int, str]:
    """Return status and message for a client.

    Only errors that speak of what the client has sent are passed on in their own words. All others may name files or
    the insides of this service, and stay in its log.
    """
    if isinstance(error, RequestError):
        return error.status, str(error)
    message = str(error)
    if isinstance(error, TransientImageError):
        return UNPROCESSABLE, message
    if isinstance(error, (ImageError, TextError)):
        return BAD_REQUEST, message
    return FAILED, "the service failed on this request; its log says why, under this request's id"
