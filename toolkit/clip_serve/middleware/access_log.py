"""One line of JSON for each request, its id and trace, and the last word on errors that nobody expected."""

from __future__ import annotations

import re
import sys
import traceback
import uuid
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_serve.errors import told
from clip_serve.metrics import Metrics
from clip_serve.middleware.replies import error_reply
from clip_toolkit.listing import json_text

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # https://www.w3.org/TR/trace-context/
_LONGEST = 200  # characters of a path


class AccessLog:
    """Middleware around all others.

    A client's ``X-Request-ID`` and ``traceparent`` come back in the response and stand in the log; without the former
    the request gets an id.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, quiet: bool) -> None:
        """Take where to count; with ``quiet`` only failures are written."""
        self._app, self._metrics, self._quiet = app, metrics, quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and write down what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, headers = perf_counter(), Headers(scope=scope)
        marks = _marks(headers)
        noted: dict[str, Any] = {}
        scope.setdefault("state", {})["noted"] = noted

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                noted["status"] = message["status"]
                MutableHeaders(scope=message).update(marks)
            await send(message)

        try:
            await self._app(scope, receive, marked)
        except Exception as error:
            self._fail(marks, error)
            if "status" in noted:  # half an answer can only be cut off
                raise
            await error_reply(scope, *told(error))(scope, receive, marked)
        finally:
            self._write(scope, noted, marks, perf_counter() - start)

    def _fail(self, marks: dict[str, str], error: Exception) -> None:
        lines = traceback.format_exception(error)
        _print({"time": _now(), "id": marks["x-request-id"], "error": "".join(lines)})

    def _write(self, scope: Scope, noted: dict[str, Any], marks: dict[str, str], seconds: float) -> None:
        endpoint = getattr(scope.get("endpoint"), "__name__", "none")
        status = noted.get("status", 0)
        self._metrics.responses.labels(endpoint, str(status)).inc()
        if self._quiet:
            return
        line = {"time": _now(), "id": marks["x-request-id"], "client": (scope.get("client") or ("",))[0]}
        line |= {"method": scope["method"], "path": scope["path"][:_LONGEST], "status": status}
        line |= {"seconds": round(seconds, 6)} | {name: value for name, value in noted.items() if name != "status"}
        _print(line | ({"traceparent": marks["traceparent"]} if "traceparent" in marks else {}))


def _marks(headers: Headers) -> dict[str, str]:
    given, trace = headers.get("x-request-id", ""), headers.get("traceparent", "")
    marks = {"x-request-id": given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex}
    return marks | ({"traceparent": trace} if _TRACEPARENT.fullmatch(trace) else {})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _print(line: dict[str, Any]) -> None:
    print(json_text(line), file=sys.stderr)
