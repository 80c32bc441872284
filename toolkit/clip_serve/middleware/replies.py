"""Errors as JSON, in the form of the protocol that the request's path belongs to."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import Scope

from clip_serve.errors import BUSY, RETRY_SECONDS, UNAUTHORISED, UNAVAILABLE

_OPENAI = "/v1/embeddings"


def error_reply(scope: Scope, status: int, message: str) -> JSONResponse:
    """Return the response for an error; ``/v1/embeddings`` has OpenAI's form, all others that of the v2 protocol."""
    headers = {}
    if status in (BUSY, UNAVAILABLE):
        headers["Retry-After"] = str(RETRY_SECONDS)
    if status == UNAUTHORISED:
        headers["WWW-Authenticate"] = "Bearer"
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": None} if scope["path"] == _OPENAI else message
    return JSONResponse({"error": error}, status, headers)
