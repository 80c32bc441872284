"""The Open Inference Protocol, version 2, under ``/v2``."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from clip_serve.errors import UNAVAILABLE
from clip_serve.models.served import Served
from clip_serve.protocol.inference import HEADER_LENGTH, parse_request, write_response
from clip_serve.routes.asking import answer, service_of
from clip_toolkit.version import __version__

_INPUTS: dict[str, dict[str, Any]] = {
    "image": {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
    "text": {"name": "text", "datatype": "BYTES", "shape": [-1]},
}

_ENCODED = "UINT8 RGB [n, height, width, 3], or BYTES [n]: encoded images such as JPEG and PNG, in JSON as base64"


async def live(_: Request) -> Response:
    """Say that the process answers."""
    return Response()


async def ready(request: Request) -> Response:
    """Say whether requests should come here."""
    return Response(status_code=UNAVAILABLE if service_of(request).draining else 200)


async def server(request: Request) -> Response:
    """Name the server and its extensions."""
    of_admin = ["model_repository"] if service_of(request).options.admin else []
    extensions = ["binary_tensor_data", "classification", *of_admin]
    return JSONResponse({"name": "clip-serve", "version": __version__, "extensions": extensions})


async def model(request: Request) -> Response:
    """Describe a model."""
    served = _served(request)
    outputs = [{"name": name, "datatype": "FP32", "shape": [-1, size]} for name, size in served.kind.outputs.items()]
    labels = getattr(served.kind.model.spec, "labels", ())
    return JSONResponse(
        {
            "name": served.name,
            "versions": [served.version],
            "platform": "onnxruntime_onnx",
            "inputs": [_INPUTS[name] for name in served.kind.inputs],
            "outputs": outputs,
            "parameters": {"image": _ENCODED, "labels": list(labels), "batch_sizes": list(served.sizes)},
        }
    )


async def model_ready(request: Request) -> Response:
    """Say whether a model answers."""
    _served(request)
    return await ready(request)


async def infer(request: Request) -> Response:
    """Run a model on tensors."""
    served = _served(request)
    body, header_length = await request.body(), request.headers.get(HEADER_LENGTH)
    asked = await run_in_threadpool(parse_request, body, header_length, served.kind)
    timed = await answer(request, served, asked.sources, [f"image[{index}]" for index in range(len(asked.sources))])
    found, length = await run_in_threadpool(write_response, asked, served, [item.result for item in timed])
    if length is None:
        return Response(found, media_type="application/json")
    return Response(found, media_type="application/octet-stream", headers={HEADER_LENGTH: str(length)})


def _served(request: Request) -> Served:
    names = request.path_params
    return service_of(request).find(names["model"], names.get("version"))
