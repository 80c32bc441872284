"""The service as an ASGI application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clip_serve.errors import RequestError, told
from clip_serve.middleware.access_log import AccessLog
from clip_serve.middleware.admission import Admission
from clip_serve.middleware.door import Door
from clip_serve.middleware.replies import error_reply
from clip_serve.options import ServeOptions
from clip_serve.routes import embeddings, inference, operations, predict, repository, search
from clip_serve.service import Service
from clip_toolkit.errors import ImageError, TextError

_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"


def create_app(options: ServeOptions) -> Starlette:
    """Open the models and make the application that answers for them; ``app.state.service`` is its `Service`.

    Raises:
        ModelError: a file is missing, foreign or damaged, or two have the same name.
        SearchIndexError: the index is missing or damaged, or is of none of the models.
        ClipToolkitError: the token cannot be read.
        DeviceError, MissingDependencyError: as in `clip_toolkit.load`.
    """
    service = Service(options)
    app = Starlette(
        routes=[
            Route("/v2", inference.server),
            Route("/v2/health/live", inference.live),
            Route("/v2/health/ready", inference.ready),
            *(Route(path, inference.model) for path in (_MODEL, _VERSION)),
            *(Route(f"{path}/ready", inference.model_ready) for path in (_MODEL, _VERSION)),
            *(Route(f"{path}/infer", inference.infer, methods=["POST"]) for path in (_MODEL, _VERSION)),
            Route("/v2/repository/index", repository.index, methods=["POST"]),
            Route("/v2/repository/models/{model}/load", repository.load, methods=["POST"]),
            Route("/v2/repository/models/{model}/unload", repository.unload, methods=["POST"]),
            Route("/v1/predict", predict.predict, methods=["POST"]),
            Route("/v1/embeddings", embeddings.embeddings, methods=["POST"]),
            Route("/v1/search", search.search, methods=["POST"]),
            Route("/v1/models", operations.models),
            Route("/metrics", operations.metrics),
            Route("/openapi.json", operations.openapi),
            Route("/", operations.page),
        ],
        middleware=[
            Middleware(AccessLog, metrics=service.metrics, quiet=options.quiet),
            Middleware(Door, address=options.address),
            Middleware(Admission, limits=options.limits),
        ],
        exception_handlers=dict.fromkeys([HTTPException, ImageError, TextError, RequestError], _refused),
    )
    app.state.service = service
    return app


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return error_reply(request.scope, error.status_code, error.detail)
    return error_reply(request.scope, *told(error))
