"""Endpoints for those who run the service, or look at it."""

from __future__ import annotations

from importlib import resources

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from clip_serve.models.kinds import Images
from clip_serve.openapi import document
from clip_serve.routes.asking import service_of
from clip_toolkit.spec.description import description_rows

_PAGE = resources.files("clip_serve").joinpath("page.html").read_text(encoding="utf-8")

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:; "
    "media-src blob:; connect-src 'self'"
)
"""What the page may load: nothing from elsewhere."""


async def metrics(request: Request) -> Response:
    """Give the figures to Prometheus."""
    return Response(service_of(request).metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})


async def models(request: Request) -> Response:
    """List the models, in OpenAI's form, with what their files say of themselves."""
    found = [
        {
            "id": served.name,
            "object": "model",
            "version": served.version,
            "inputs": list(served.kind.inputs),
            "explains": isinstance(served.kind, Images) and served.kind.explains,
            "card": list(description_rows(served.kind.model.spec)),
        }
        for served in service_of(request).models.values()
    ]
    return JSONResponse({"object": "list", "data": found})


async def openapi(_: Request) -> Response:
    """Give the OpenAPI document."""
    return JSONResponse(document())


async def page(_: Request) -> Response:
    """Give the page to try the service with."""
    return HTMLResponse(_PAGE, headers={"content-security-policy": _POLICY, "x-content-type-options": "nosniff"})
