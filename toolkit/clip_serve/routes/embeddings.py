"""``POST /v1/embeddings``, in OpenAI's form: texts by a text tower, images by a classifier's encoder.

https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from clip_serve.errors import RequestError
from clip_serve.models.kinds import Images, Source, TextRow, Texts
from clip_serve.models.served import Served
from clip_serve.options import MOST_IMAGES
from clip_serve.protocol.tensors import checked, from_base64, json_object
from clip_serve.routes.asking import answer, service_of, text_or_none
from clip_toolkit.errors import ModelError

_ENCODINGS = ("float", "base64")


async def embeddings(request: Request) -> Response:
    """Embed texts or images, each of L2 norm 1."""
    asked, sources = await run_in_threadpool(_read, await request.body())
    asked = dict(request.query_params) | {name: value for name, value in asked.items() if value is not None}
    served = _model(request, asked, sources)
    width = served.kind.outputs["embedding"]
    if asked.get("dimensions", width) != width:
        raise RequestError(f"dimensions: {served.name} has {width}, and they are not cut")
    encoding = asked.get("encoding_format", "float")
    if encoding not in _ENCODINGS:
        raise RequestError(f"encoding_format: expected one of {', '.join(_ENCODINGS)}, got {encoding!r}")
    names = [f"input[{index}]" for index in range(len(sources))]
    timed = await answer(request, served, [adapted(source, served) for source in sources], names)
    results = [item.result for item in timed]
    tokens = sum(result.tokens for result in results if isinstance(result, TextRow))
    return JSONResponse(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": _encoded(result.embedding, encoding, served)}
                for index, result in enumerate(results)
            ],
            "model": served.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def adapted(source: Source, served: Served) -> Source:
    """Give an image for a model that reads a text with each an empty one: no text moves the image's embedding."""
    image, text = source
    return (image, "") if image is not None and "text" in served.kind.inputs else (image, text)


def _read(body: bytes) -> tuple[dict[str, Any], list[Source]]:
    asked = json_object(body)
    given = asked.get("input")
    items = given if isinstance(given, list) else [given]
    if not 1 <= len(items) <= MOST_IMAGES:
        raise RequestError(f"input: expected 1 to {MOST_IMAGES} texts or images, got {len(items)}")
    return asked, [_source(item, f"input[{index}]") for index, item in enumerate(items)]


def _source(item: Any, where: str) -> Source:
    """Read a text, an image as ``data:`` URL, or an object with ``text``, ``image`` or ``image_url``."""
    if isinstance(item, str):
        return (from_base64(item, where), None) if item.startswith("data:image/") else (None, item)
    found = checked(item, dict, f"{where}: a text, or an image")
    url = found.get("image_url")
    image = found.get("image", url.get("url") if isinstance(url, dict) else url)
    if (image is None) == (found.get("text") is None):
        raise RequestError(f"{where}: expected either text or image")
    return (None, checked(found["text"], str, where)) if image is None else (from_base64(image, where), None)


def _model(request: Request, asked: dict[str, Any], sources: list[Source]) -> Served:
    kinds = {Texts if image is None else Images for image, _ in sources}
    if len(kinds) > 1:
        raise RequestError("input: texts and images are read by two models: send two requests")
    [kind] = kinds
    served = service_of(request).find_for(kind, text_or_none(asked, "model"))
    if not isinstance(served.kind, kind):
        reads = "texts alone" if kind is Images else "images; texts take a file of clip-export --text-tower"
        raise RequestError(f"input: {served.name} reads {reads}")
    return served


def _encoded(embedding: np.ndarray[Any, np.dtype[np.float32]], encoding: str, served: Served) -> str | list[float]:
    if not np.isfinite(embedding).all():
        raise ModelError(f"{served.name}: the network's embedding is not finite")
    if encoding == "base64":
        return base64.b64encode(embedding.astype("<f4").tobytes()).decode()
    found: list[float] = embedding.tolist()
    return found
