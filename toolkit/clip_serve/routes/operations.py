"""Endpoints for those who run the service."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from clip_serve.routes.asking import service_of


async def metrics(request: Request) -> Response:
    """Give the figures to Prometheus."""
    return Response(service_of(request).metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})
