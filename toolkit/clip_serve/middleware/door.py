"""Who may come in: those with the token, or, without one, those who call this machine by a name of its own."""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from clip_serve.errors import FORBIDDEN, UNAUTHORISED
from clip_serve.middleware.replies import error_reply
from clip_serve.options import AddressOptions
from clip_toolkit.errors import ClipToolkitError

OPEN = ("/", "/v2/health/live", "/v2/health/ready")
"""Paths without a secret: the page, which asks for the token itself, and the probes of orchestrators."""

_SHORTEST = 16  # characters of a token


def read_token(path: Path) -> str:
    """Read the token from its file.

    Raises:
        ClipToolkitError: it cannot be read, or is too short to be a secret.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ClipToolkitError(f"{path}: the token cannot be read ({error})") from error
    if len(token) < _SHORTEST or not token.isprintable() or " " in token:
        raise ClipToolkitError(
            f"{path}: expected a token of at least {_SHORTEST} visible characters. Make one: openssl rand -hex 32"
        )
    return token


class Door:
    """Middleware that turns strangers away."""

    def __init__(self, app: ASGIApp, address: AddressOptions) -> None:
        """Read the token.

        Raises:
            ClipToolkitError: as in `read_token`.
        """
        self._app = app
        self._token = read_token(address.token_file) if address.token_file else None
        self._checks_host = address.is_local and self._token is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if self._token and scope["path"] not in OPEN and not self._has_token(headers):
                reply = error_reply(scope, UNAUTHORISED, "send the token: Authorization: Bearer ...")
                await reply(scope, receive, send)
                return
            if self._checks_host and not _is_this_machine(headers.get("host", "")):
                # A page of another site can make its own name mean this machine (DNS rebinding).
                reply = error_reply(scope, FORBIDDEN, "the Host header does not name this machine")
                await reply(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _has_token(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        expected = (self._token or "").encode()
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(errors="replace"), expected)


def _is_this_machine(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"
