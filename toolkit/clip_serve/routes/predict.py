"""``POST /v1/predict``: images in whatever way is at hand, predictions as ``clip-infer`` writes them."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from clip_serve.errors import WRONG_TYPE, RequestError
from clip_serve.models.batching import Answer
from clip_serve.models.kinds import Images
from clip_serve.models.served import Served
from clip_serve.options import MOST_IMAGES
from clip_serve.protocol.tensors import checked, from_base64, json_object
from clip_serve.routes.asking import answer, count_of, service_of, text_or_none
from clip_toolkit.errors import TextError
from clip_toolkit.explaining.overlay import explained_label
from clip_toolkit.network import NO_RELEVANCE
from clip_toolkit.stream.records import Record, record

_TOP_K = 3


@dataclass
class Question:
    """What a request asks, in whatever form it came.

    Attributes:
        images: encoded, with the names that the answer repeats.
        texts: one for each image, or one for all, or none.
        settings: all else that was given, in the query or in the body.
    """

    images: list[tuple[str, bytes]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


async def predict(request: Request) -> Response:
    """Classify the images of a request, all of them or none."""
    question = await read_question(request, "model", "top_k", "embedding", "overlay")
    settings = question.settings
    if not 1 <= len(question.images) <= MOST_IMAGES:
        raise RequestError(f"images: expected 1 to {MOST_IMAGES}, got {len(question.images)}")
    top_k = count_of(settings.get("top_k", _TOP_K), "top_k")
    wants_embedding = _truth(settings.get("embedding", False), "embedding")
    served = service_of(request).find_for(Images, settings.get("model"))
    if not isinstance(served.kind, Images):
        raise RequestError(f"model: {served.name} reads texts alone. Ask /v1/embeddings.")
    wants_overlay = _truth(settings.get("overlay", False), "overlay")
    if wants_overlay and not served.kind.explains:
        raise RequestError(f"overlay: {served.name}: {NO_RELEVANCE}")
    texts = _texts(question)
    sources = [(image, text) for (_, image), text in zip(question.images, texts, strict=True)]
    timed = await answer(request, served, sources, [name for name, _ in question.images])
    records = [
        _record(name, item, top_k, served, embedding=wants_embedding)
        for (name, _), item in zip(question.images, timed, strict=True)
    ]
    if wants_overlay:
        for found, item in zip(records, timed, strict=True):
            found["overlay"] = await run_in_threadpool(_overlay, served.kind, item)
    return JSONResponse({"model": served.name, "version": served.version, "predictions": records})


def _truth(value: Any, name: str) -> bool:
    found = {"true": True, "1": True, "false": False, "0": False, "": False}.get(str(value).lower())
    if found is None:
        raise RequestError(f"{name}: expected true or false, got {value!r}")
    return found


def _texts(question: Question) -> list[str | None]:
    count = len(question.images)
    if len(question.texts) not in (0, 1, count):
        raise TextError(f"text: expected one for each of {count} images, or one for all, got {len(question.texts)}")
    return [*question.texts] if len(question.texts) == count else [next(iter(question.texts), None)] * count


def _record(name: str, item: Answer[Any, Any], top_k: int, served: Served, *, embedding: bool) -> Record:
    result = item.result
    found = record(name, result, top_k, result.provider, served.kind.model.spec, text=result.text)  # type: ignore[arg-type]
    if embedding:
        found["embedding"] = result.embedding.tolist()
    seconds = {"decode": item.prepared, "queue": item.queued, "compute": item.computed}
    return found | {"milliseconds": {stage: round(value * 1000, 3) for stage, value in seconds.items()}}


def _overlay(kind: Images, item: Answer[Any, Any]) -> dict[str, str]:
    buffer = io.BytesIO()
    kind.overlay(item.item).save(buffer, "png")
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"shows": explained_label(item.result), "image": f"data:image/png;base64,{encoded}"}


async def read_question(request: Request, *settings: str) -> Question:
    """Read images, texts and settings: from the query, and from a form, from JSON, or from a body that is an image.

    Args:
        request: as it came.
        settings: which ones there are; a misspelt ``model`` would be answered by another.

    Raises:
        RequestError: it is none of these, is damaged, or has other settings.
    """
    question = await _read_body(request)
    given = dict(request.query_params)
    text = given.pop("text", None)
    if text is not None and not question.texts:
        question.texts.append(text)
    question.settings = given | question.settings
    for name in question.settings:
        if name not in settings:
            raise RequestError(f"{name!r} is not asked for here: expected {', '.join(settings)}, images and texts")
    return question


async def _read_body(request: Request) -> Question:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _of_form(request)
    body = await request.body()
    if kind == "application/json":
        return await run_in_threadpool(_of_json, body)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return Question([("image", body)])
    raise RequestError(
        "content type: expected multipart/form-data (curl -F file=@image.jpg), application/json or image/*, "
        f"got {kind!r}",
        WRONG_TYPE,
    )


class _FormInMemory(MultiPartParser):
    """A form whose files stay in memory, which the limit on a body's size bounds: nothing is written to disk."""

    spool_max_size = 2**62


async def _of_form(request: Request) -> Question:
    async def body() -> AsyncIterator[bytes]:
        yield await request.body()

    limits = {"max_files": MOST_IMAGES, "max_fields": 2 * MOST_IMAGES}
    try:
        form = await _FormInMemory(request.headers, body(), **limits).parse()  # type: ignore[arg-type]
    except (MultiPartException, FormParserError) as error:  # the latter as it is in older versions of Starlette
        reason = error.message if isinstance(error, MultiPartException) else error
        raise RequestError(f"multipart/form-data: {reason}") from error
    question = Question()
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                question.images.append((value.filename or name, await value.read()))
            elif name == "text":
                question.texts.append(value)
            else:
                question.settings[name] = value
    finally:
        await form.close()
    return question


def _of_json(body: bytes) -> Question:
    found = json_object(body)
    images = _one_or_more(found, "image")
    encoded = [(f"image {index}", from_base64(item, f"images[{index}]")) for index, item in enumerate(images)]
    texts = [checked(item, str, f"texts[{index}]") for index, item in enumerate(_one_or_more(found, "text"))]
    text_or_none(found, "model")
    return Question(encoded, texts, {name: value for name, value in found.items() if value is not None})


def _one_or_more(found: dict[str, Any], name: str) -> list[Any]:
    """Take ``name`` and its plural out of a JSON object."""
    one, several = found.pop(name, None), checked(found.pop(f"{name}s", []), list, f"{name}s")
    return several if one is None else [one, *several]
