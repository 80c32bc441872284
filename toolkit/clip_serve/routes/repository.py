"""The protocol's repository extension: which models there are, and loading and unloading them.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from clip_serve.errors import FORBIDDEN, RequestError
from clip_serve.protocol.tensors import checked, json_object
from clip_serve.routes.asking import service_of
from clip_serve.service import Service
from clip_toolkit.terminal import say


async def index(request: Request) -> Response:
    """List the models, those that are not loaded as well unless ``ready`` is true."""
    service, asked = _admitted(request), await _asked(request)
    only_ready = checked(asked.get("ready", False), bool, "ready")
    found = [_entry(service, name) for name in service.repository.paths if name in service.models or not only_ready]
    return JSONResponse(found)


async def load(request: Request) -> Response:
    """Load a model, or read its file anew."""
    service, asked = _admitted(request), await _asked(request)
    _check_parameters(asked)
    await service.load(request.path_params["model"], say)
    return Response()


async def unload(request: Request) -> Response:
    """Unload a model; requests that have reached it are answered."""
    service, asked = _admitted(request), await _asked(request)
    _check_parameters(asked, "unload_dependents")  # no model depends on another
    await service.unload(request.path_params["model"], say)
    return Response()


def _admitted(request: Request) -> Service:
    service = service_of(request)
    if not service.options.admin:
        raise RequestError("models are not loaded and unloaded by requests: start clip-serve with --admin", FORBIDDEN)
    return service


async def _asked(request: Request) -> dict[str, Any]:
    return json_object(await request.body() or b"{}")


def _check_parameters(asked: dict[str, Any], *known: str) -> None:
    for name in checked(asked.get("parameters", {}), dict, "parameters"):
        if name not in known:
            raise RequestError(f"parameters: {name!r} is not offered: a model is loaded as its file is")


def _entry(service: Service, name: str) -> dict[str, str]:
    served = service.models.get(name)
    if served is None:
        return {"name": name, "state": "UNAVAILABLE", "reason": "unloaded"}
    return {"name": name, "version": served.version, "state": "READY", "reason": ""}
