"""``POST /v1/search``: images of the index that are most like an image or a description."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from clip_serve.errors import NOT_FOUND, RequestError
from clip_serve.routes.asking import answer, count_of, service_of
from clip_serve.routes.embeddings import adapted
from clip_serve.routes.predict import read_question

_K = 10


async def search(request: Request) -> Response:
    """Find the nearest images: their paths within the indexed folder."""
    service, question = service_of(request), await read_question(request, "k")
    index = service.index
    if index is None:
        raise RequestError("there is no index: start clip-serve with --index DIR", NOT_FOUND)
    k = count_of(question.settings.get("k", _K), "k")
    if len(question.images) + len(question.texts) != 1:
        raise RequestError("expected one image, or one text")
    if question.texts and not index.texts:
        raise RequestError("text: no model served here shares a space with the index's images")
    served = service.find(index.texts if question.texts else index.images)
    source = (None, question.texts[0]) if question.texts else (question.images[0][1], None)
    [item] = await answer(request, served, [adapted(source, served)], ["image"])
    return JSONResponse({"model": served.name, "hits": await index.query(item.result.embedding, k)})
