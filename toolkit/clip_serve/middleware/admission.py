"""How much is taken in: requests at a time, bytes of each and of all, and seconds for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_serve.errors import BUSY, TOO_LARGE, TOO_SLOW, UNAVAILABLE, WRONG_TYPE, RequestError
from clip_serve.middleware.replies import error_reply
from clip_serve.options import MIB, LimitOptions

_HELD_BYTES = 256 * MIB
"""Bodies that are held at a time; without it, the queue's length times the size of a body would be the bound."""

_PARTING_SECONDS = 5.0  # that the rest of a refused body may take: closing earlier would cost the client the answer

GONE = 499
"""Status, in the log alone, of a request whose client has left (nginx's)."""


class Admission:
    """Middleware that takes requests with a body in, or refuses them at once.

    The body is read here, whole; from then on a client that leaves gives up its place.
    """

    def __init__(self, app: ASGIApp, limits: LimitOptions) -> None:
        """Start empty."""
        self._app, self._limits = app, limits
        self._requests, self._bytes = 0, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, within the limits."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await self._refuse(refusal, _chunks(receive), scope, receive, send)
            return
        self._requests += 1
        try:
            await self._admitted(scope, receive, send)
        finally:
            self._requests -= 1

    def _refusal(self, scope: Scope) -> RequestError | None:
        if self._requests >= self._limits.max_queue:
            return RequestError("the queue is full: try again", BUSY)
        encoding = Headers(scope=scope).get("content-encoding", "identity")
        if encoding != "identity":
            return RequestError(f"content encoding: {encoding!r} is not unpacked: send the body as it is", WRONG_TYPE)
        return None

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, held, started = bytearray(), 0, False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        seconds, is_read, chunks = self._limits.timeout, False, _chunks(receive)
        try:
            async with asyncio.timeout(seconds) as timer:
                async for chunk in chunks:
                    self._bytes += len(chunk)
                    held += len(chunk)
                    self._check(len(body) + len(chunk))
                    body += chunk
                is_read = True
                await self._until_gone(scope, bytes(body), receive, watched)
        except RequestError as error:
            await self._refuse(error, chunks, scope, receive, send)
        except TimeoutError:
            if started or not timer.expired():  # half an answer can only be cut off
                raise
            status, what = (UNAVAILABLE, "answered") if is_read else (TOO_SLOW, "received")
            await error_reply(scope, status, f"the request was not {what} within {seconds:g} seconds")(
                scope, receive, send
            )
        except _ClientGoneError:
            scope["state"]["noted"]["status"] = GONE
        finally:
            self._bytes -= held

    def _check(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise RequestError(f"the body is larger than {self._limits.max_body} MiB (--max-body)", TOO_LARGE)
        if self._bytes > _HELD_BYTES:
            raise RequestError("too many bytes wait for an answer: try again", BUSY)

    async def _until_gone(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application until it has answered, or its client has left."""

        async def replay() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        work = asyncio.ensure_future(self._app(scope, replay, send))
        leaving = asyncio.ensure_future(receive())
        try:
            await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise _ClientGoneError
            work.result()
        finally:
            work.cancel()
            leaving.cancel()
            await asyncio.gather(work, leaving, return_exceptions=True)

    async def _refuse(
        self, error: RequestError, rest: AsyncIterator[bytes], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer once the rest of the body has passed by, or enough: many clients read only after they have written."""
        if not _waits_to_send(scope):
            seen = 0
            with suppress(TimeoutError, _ClientGoneError):
                async with asyncio.timeout(_PARTING_SECONDS):
                    async for chunk in rest:
                        seen += len(chunk)
                        if seen > self._limits.body_bytes:
                            break
        await error_reply(scope, error.status, str(error))(scope, receive, send)


class _ClientGoneError(Exception):
    """The client has closed the connection."""


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        yield message.get("body", b"")
        more = message.get("more_body", False)


def _waits_to_send(scope: Scope) -> bool:
    return Headers(scope=scope).get("expect", "").lower() == "100-continue"
