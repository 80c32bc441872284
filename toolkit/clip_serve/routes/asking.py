"""What endpoints share: the service behind a request, the model it means, its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from clip_serve.errors import RequestError
from clip_serve.models.batching import Answer
from clip_serve.models.kinds import Source
from clip_serve.models.served import Served
from clip_serve.protocol.tensors import checked, json_object
from clip_serve.service import Service
from clip_toolkit.commands.running_options import MOST
from clip_toolkit.numbers import whole

_count = whole(most=MOST)


def service_of(request: Request) -> Service:
    """Return the service that a request has come to."""
    found: Service = request.app.state.service
    return found


async def json_body(request: Request) -> dict[str, Any]:
    """Parse a body in a thread: it may be megabytes.

    Raises:
        RequestError: it is no JSON object.
    """
    return await run_in_threadpool(json_object, await request.body())


async def answer(
    request: Request, served: Served, sources: Sequence[Source], names: Sequence[str]
) -> list[Answer[Any, Any]]:
    """Ask a model, and note for the access log which and how much; raise what `Served.answer` does."""
    request.state.noted |= {"model": served.name, "version": served.version, "items": len(sources)}
    return await served.answer(sources, names)


def count_of(text: Any, name: str) -> int:
    """Read how many results are asked for.

    Raises:
        RequestError: it is no whole number from 1 on.
    """
    try:
        return _count(str(text))
    except ValueError as error:
        raise RequestError(f"{name}: {error}") from error


def text_or_none(found: dict[str, Any], name: str) -> str | None:
    """Return a text of a JSON object.

    Raises:
        RequestError: it is there and is no text.
    """
    return None if found.get(name) is None else checked(found[name], str, name)
