"""The OpenAPI document: every endpoint, what it takes, and with which status it answers.

https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clip_serve.options import MOST_IMAGES
from clip_toolkit.commands.running_options import MOST
from clip_toolkit.version import __version__

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_OBJECT: Schema = {"type": "object"}
_BASE64: Schema = {"type": "string", "contentEncoding": "base64", "description": "also as a data: URL"}
_FILE: Schema = {"type": "string", "format": "binary"}
_COUNT: Schema = {"type": "integer", "minimum": 1, "maximum": MOST}


def _list(items: Schema, most: int = MOST_IMAGES) -> Schema:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


def _object(properties: Mapping[str, Schema], *required: str) -> Schema:
    return {"type": "object", "properties": dict(properties), "required": list(required)}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_SETTINGS = {"model": _TEXT, "top_k": _COUNT, "embedding": {"type": "boolean"}, "overlay": {"type": "boolean"}}
_TENSOR = {"name": _TEXT, "shape": {"type": "array", "items": {"type": "integer"}}, "parameters": _OBJECT}

_SCHEMAS: dict[str, Schema] = {
    "Error": _object({"error": {"type": ["string", "object"]}}, "error"),
    "PredictRequest": _object(
        {"image": _BASE64, "images": _list(_BASE64), "text": _TEXT, "texts": _list(_TEXT)} | _SETTINGS
    ),
    "PredictResponse": _object(
        {"model": _TEXT, "version": _TEXT, "predictions": _list(_OBJECT)}, "model", "version", "predictions"
    ),
    "SearchRequest": _object({"image": _BASE64, "text": _TEXT, "k": _COUNT}),
    "SearchResponse": _object({"model": _TEXT, "hits": {"type": "array", "items": _OBJECT}}, "model", "hits"),
    "EmbeddingsRequest": _object(
        {
            "input": {"oneOf": [_TEXT, _list({"oneOf": [_TEXT, _OBJECT]})]},
            "model": _TEXT,
            "encoding_format": {"enum": ["float", "base64"]},
            "dimensions": {"type": "integer"},
        },
        "input",
    ),
    "EmbeddingsResponse": _object({"object": _TEXT, "data": _list(_OBJECT), "model": _TEXT, "usage": _OBJECT}, "data"),
    "InferRequest": _object(
        {
            "id": _TEXT,
            "inputs": _list(
                _object(
                    _TENSOR | {"datatype": {"enum": ["UINT8", "BYTES"]}, "data": {"type": "array"}},
                    "name", "shape", "datatype",
                )
            ),
            "outputs": {"type": "array", "items": _object({"name": _TEXT, "parameters": _OBJECT}, "name")},
            "parameters": _OBJECT,
        },
        "inputs",
    ),
    "IndexRequest": _object({"ready": {"type": "boolean"}}),
    "IndexResponse": {
        "type": "array",
        "items": _object(dict.fromkeys(("name", "version", "state", "reason"), _TEXT), "name", "state", "reason"),
    },
    "RepositoryRequest": _object({"parameters": _OBJECT}),
    "InferResponse": _object(
        {"model_name": _TEXT, "model_version": _TEXT, "id": _TEXT, "outputs": _list(_object(_TENSOR))}, "outputs"
    ),
}  # fmt: skip

_REFUSALS = {
    "400": "what is wrong with the request",
    "401": "the bearer token is missing",
    "403": "the Host header does not name this machine; models are not loaded without --admin",
    "404": "no such model, version or index",
    "408": "the request did not arrive in time",
    "413": "the body is too large",
    "415": "another content type is expected",
    "422": "the image takes more than decoding may",
    "429": "the queue is full; Retry-After says when to try again",
    "503": "not answered in time, or not ready",
}


def document() -> dict[str, Any]:
    """Return the document."""
    model, version = _path("model"), _path("version")
    paths: dict[str, Schema] = {
        "/v1/predict": _post("Classify images", _image_bodies("PredictRequest", _SETTINGS), "PredictResponse"),
        "/v1/embeddings": _post("Embed texts or images", _json("EmbeddingsRequest"), "EmbeddingsResponse"),
        "/v1/search": _post(
            "Find images in the index", _image_bodies("SearchRequest", {"k": _COUNT}), "SearchResponse"
        ),
        "/v1/models": _get("List the models"),
        "/v2": _get("Name the server and its extensions"),
        "/v2/health/live": _get("Tell whether the process answers", content=None),
        "/v2/health/ready": _get("Tell whether requests should come", content=None),
        "/metrics": _get("Figures for Prometheus", content="text/plain"),
        "/openapi.json": _get("This document"),
        "/": _get("A page to try the service with", content="text/html"),
    }
    for path, names in (("/v2/models/{model}", [model]), ("/v2/models/{model}/versions/{version}", [model, version])):
        paths[path] = _get("Describe a model", names)
        paths[f"{path}/ready"] = _get("Tell whether a model answers", names, content=None)
        infer = _post("Run a model on tensors", _json("InferRequest"), "InferResponse", names)
        infer["post"]["requestBody"]["content"]["application/octet-stream"] = {"schema": _FILE}
        infer["post"]["responses"]["200"]["content"]["application/octet-stream"] = {"schema": _FILE}
        paths[f"{path}/infer"] = infer
    paths["/v2/repository/index"] = _post("List all models", _json("IndexRequest"), "IndexResponse")
    for verb in ("load", "unload"):
        change = _post(f"{verb.capitalize()} a model", _json("RepositoryRequest"), None, [model])
        paths[f"/v2/repository/models/{{model}}/{verb}"] = change
    return {
        "openapi": "3.1.0",
        "info": {"title": "clip-serve", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _path(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": _TEXT}


def _json(name: str) -> Schema:
    return {"application/json": {"schema": _ref(name)}}


def _image_bodies(name: str, settings: Mapping[str, Schema]) -> Schema:
    form = _object({"file": _FILE, "text": _TEXT, **settings})
    return _json(name) | {"multipart/form-data": {"schema": form}, "image/*": {"schema": _FILE}}


def _responses(content: Schema | None) -> Schema:
    answered = {"description": "the answer"} | ({} if content is None else {"content": content})
    refused = {
        status: {"description": text, "content": _json("Error")} if status != "503" else {"description": text}
        for status, text in _REFUSALS.items()
    }
    return {"200": answered, **refused}


def _get(summary: str, parameters: list[Schema] | None = None, content: str | None = "application/json") -> Schema:
    found = None if content is None else {content: {"schema": _OBJECT if content == "application/json" else _TEXT}}
    return {"get": {"summary": summary, "parameters": parameters or [], "responses": _responses(found)}}


def _post(summary: str, bodies: Schema, answer: str | None, parameters: list[Schema] | None = None) -> Schema:
    return {
        "post": {
            "summary": summary,
            "parameters": parameters or [],
            "requestBody": {"required": True, "content": bodies},
            "responses": _responses(None if answer is None else _json(answer)),
        }
    }
