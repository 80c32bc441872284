"""The HTTP server: uvicorn, with the time limits and the end that it lacks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from types import FrameType
from typing import Any

from starlette.applications import Starlette
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from clip_serve.options import AddressOptions, ServeOptions
from clip_serve.service import Service
from clip_serve.watching import watch
from clip_toolkit.errors import ClipToolkitError
from clip_toolkit.signals import is_ignored
from clip_toolkit.terminal import say

_HEAD_SECONDS = 10.0
"""Time for the head of a request, from its connection or its first byte on."""

_KEEP_ALIVE_SECONDS = 75  # beyond the 60 that load balancers keep theirs
_LAST_CALL_SECONDS = 0.5  # for clients in the middle of sending, each of whose answers says that it is the last
_BACKLOG = 1024
_FILES = 65536
_CLOSE = (b"connection", b"close")


def bind(address: AddressOptions) -> socket.socket:
    """Take the port, and let nobody connect yet: who connects expects an answer.

    Raises:
        ClipToolkitError: it is in use, or the address is not this machine's.
    """
    with _refused(address):
        family, kind, protocol, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # elsewhere it would let two processes have one port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
        except BaseException:
            listener.close()
            raise
        return listener


@contextlib.contextmanager
def _refused(address: AddressOptions) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ClipToolkitError(f"cannot listen on {address.host}, port {address.port} ({reason})") from error


def graceful_server(app: Starlette, options: ServeOptions) -> GracefulServer:
    """Return the server of an application.

    Args:
        app: of `clip_serve.app.create_app`.
        options: of the service.
    """
    config = Config(
        app,
        loop="asyncio",
        http=TimedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(options.limits.drain),
    )
    return GracefulServer(config, app.state.service, options.watch)


def serve(app: Starlette, listener: socket.socket, options: ServeOptions) -> None:
    """Answer requests on a socket of `bind` until SIGTERM or SIGINT, and then those that were taken in.

    Raises:
        ClipToolkitError: another process listens there.
    """
    with _refused(options.address):  # another process may have taken the port after `bind`
        listener.listen(_BACKLOG)
    _raise_file_limit()
    for name in ("uvicorn", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)  # every broken request would be worth a line to them
    host, port = listener.getsockname()[:2]
    server = graceful_server(app, options)
    server.greeting = f"listening on http://{f'[{host}]' if ':' in host else host}:{port}"
    server.run([listener])


class TimedProtocol(H11Protocol):
    """HTTP/1.1 that cuts off who takes too long over the head of a request; uvicorn waits for ever."""

    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Expect a head from now on."""
        super().connection_made(transport)
        self._overdue = self.loop.call_later(_HEAD_SECONDS, self._cut_off)

    def data_received(self, data: bytes) -> None:
        """Expect the rest of a head in time, and nothing once it is there."""
        if self._overdue is None and self._is_between_requests():
            self._overdue = self.loop.call_later(_HEAD_SECONDS, self._cut_off)
        super().data_received(data)
        if self._overdue is not None and not self._is_between_requests():
            self._overdue.cancel()
            self._overdue = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        if self._overdue is not None:
            self._overdue.cancel()
        super().connection_lost(exc)

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _cut_off(self) -> None:
        self._overdue = None
        self.transport.close()


class GracefulServer(Server):
    """A server that answers what it has taken in before it ends, and reads its models anew when it is told to.

    Attributes:
        greeting: what it says once it answers requests and signals, if anything.
    """

    greeting: str | None = None

    def __init__(self, config: Config, service: Service, seconds: float | None = None) -> None:
        """Take the service, which is told when the end comes, and the seconds between two looks at its files."""
        super().__init__(config)
        self._service, self._seconds = service, seconds
        self._watching: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._reload_is_due = False
        self._context = copy_context()  # in which the command's name stands; a signal comes in any

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Look out for new model files, too; by now signals are handled, as who reads the greeting relies on."""
        await super().startup(sockets)
        if self.greeting is not None:
            say(self.greeting)
        if self._seconds is not None:
            self._watching = asyncio.create_task(watch(self._service, self._seconds, self._reload))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let clients know that their next answer is the last, then end as uvicorn does."""
        self._service.draining = True
        if self._watching is not None:
            self._watching.cancel()
        for server in self.servers:
            server.close()
        self.server_state.default_headers.append(_CLOSE)
        await asyncio.sleep(_LAST_CALL_SECONDS)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGTERM and SIGINT as the usual end, which uvicorn would raise again afterwards, and SIGHUP."""
        if threading.current_thread() is not threading.main_thread():  # where alone signals come
            yield
            return
        handlers: dict[int, Callable[[int, FrameType | None], object]]
        handlers = {signal.SIGTERM: self.handle_exit, signal.SIGINT: self.handle_exit}
        if hasattr(signal, "SIGHUP"):
            loop = asyncio.get_running_loop()
            handlers[signal.SIGHUP] = lambda *_: loop.call_soon_threadsafe(self._reload)
        before = {
            number: signal.signal(number, handler) for number, handler in handlers.items() if not is_ignored(number)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _reload(self) -> None:
        self._reload_is_due = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._reload_while_due(), context=self._context)

    async def _reload_while_due(self) -> None:
        """Read the files once more where a signal has come meanwhile, and only once for any number of them."""
        while self._reload_is_due:
            self._reload_is_due = False
            await self._service.reload(say)


def _raise_file_limit() -> None:
    """Have as many open connections as the system allows: the usual soft limit of 1024 is soon reached."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
