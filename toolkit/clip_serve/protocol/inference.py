"""Requests and responses of ``infer``: JSON, and behind it the tensors that are binary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_serve.errors import RequestError
from clip_serve.models.kinds import Images, Kind, Source
from clip_serve.models.served import Served
from clip_serve.options import MOST_IMAGES
from clip_serve.protocol.tensors import InputTensor, checked, json_object, output_tensor
from clip_toolkit.errors import ModelError

HEADER_LENGTH = "Inference-Header-Content-Length"
"""HTTP header: length of the JSON, where binary tensors follow it."""

_REMOTE_MEMORY = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")


@dataclass(frozen=True)
class _Output:
    name: str
    binary: bool
    classes: int


@dataclass(frozen=True)
class InferRequest:
    """What was asked.

    Attributes:
        id: the client's name for the request, or None.
        sources: images and texts, one a row of the batch.
        outputs: which outputs, in which form.
    """

    id: str | None
    sources: list[Source]
    outputs: list[_Output]


def parse_request(body: bytes, header_length: str | None, kind: Kind[Any, Any]) -> InferRequest:
    """Parse a request to a model.

    Raises:
        RequestError: it does not follow the protocol, or asks for what the model does not have.
    """
    split = _split_at(header_length, len(body))
    header, rest = json_object(body[:split]), body[split:]
    tensors = {}
    for item in checked(header.get("inputs"), list, "inputs"):
        size = _parameters(item, "inputs").get("binary_data_size")
        if size is not None and not 0 <= checked(size, int, "binary_data_size") <= len(rest):
            raise RequestError(f"binary_data_size: {size} bytes are more than the {len(rest)} that follow")
        tensor = InputTensor(item, None if size is None else rest[:size])
        tensors[tensor.name], rest = tensor, rest[size or 0 :]
    if rest:
        raise RequestError(f"{len(rest)} bytes follow the last binary tensor")
    return InferRequest(
        None if header.get("id") is None else checked(header["id"], str, "id"),
        _sources(tensors, kind),
        _outputs(header, kind),
    )


def _split_at(header_length: str | None, size: int) -> int:
    if header_length is None:
        return size
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 16):
        raise RequestError(f"{HEADER_LENGTH}: expected a whole number, got {header_length!r}")
    if int(header_length) > size:
        raise RequestError(f"{HEADER_LENGTH}: {header_length} is beyond the body's {size} bytes")
    return int(header_length)


def _parameters(holder: Any, where: str) -> dict[str, Any]:
    found: dict[str, Any] = checked(checked(holder, dict, where).get("parameters", {}), dict, f"{where}: parameters")
    for name in _REMOTE_MEMORY:
        if name in found:
            raise RequestError(f"{where}: {name}: shared memory is not offered. Send the tensor itself.")
    return found


def _sources(tensors: Mapping[str, InputTensor], kind: Kind[Any, Any]) -> list[Source]:
    if sorted(tensors) != sorted(kind.inputs):
        raise RequestError(f"inputs: expected {', '.join(kind.inputs)}, got {', '.join(tensors) or 'none'}")
    columns = {name: _elements(tensor) for name, tensor in tensors.items()}
    counts = {name: len(column) for name, column in columns.items()}
    rows = max(counts.values())
    if min(counts.values()) != rows or rows > MOST_IMAGES:
        raise RequestError(f"inputs: expected equally many elements of each, at most {MOST_IMAGES}, got {counts}")
    missing = [None] * rows
    return list(zip(columns.get("image", missing), columns.get("text", missing), strict=True))


def _elements(tensor: InputTensor) -> list[Any]:
    if tensor.name == "text" or tensor.datatype == "BYTES":
        if tensor.datatype != "BYTES":
            raise RequestError(f"text: expected the datatype BYTES, got {tensor.datatype}")
        return tensor.elements(text=tensor.name == "text")
    if tensor.datatype != "UINT8":
        raise RequestError(f"image: expected the datatype UINT8 or BYTES (JPEG, PNG, ...), got {tensor.datatype}")
    if len(tensor.shape) != 4 or tensor.shape[-1] != 3:
        raise RequestError(f"image: expected the shape [n, height, width, 3], RGB, got {tensor.shape}")
    return list(tensor.pixels())


def _outputs(header: dict[str, Any], kind: Kind[Any, Any]) -> list[_Output]:
    all_binary = bool(_parameters(header, "the body").get("binary_data_output", False))
    asked = checked(header.get("outputs", []), list, "outputs") or [{"name": name} for name in kind.outputs]
    found = []
    for item in asked:
        parameters = _parameters(item, "outputs")
        name = checked(item.get("name"), str, "outputs: name")
        if name not in kind.outputs:
            raise RequestError(f"outputs: {name!r} is not an output. There is: {', '.join(kind.outputs)}")
        classes = checked(parameters.get("classification", 0), int, f"{name}: classification")
        if classes and not (isinstance(kind, Images) and len(kind.labels_of(name)) >= classes > 0):
            raise RequestError(f"{name}: classification: expected an output of labels, and at most their number")
        found.append(_Output(name, bool(parameters.get("binary_data", all_binary)), classes))
    return found


def write_response(request: InferRequest, served: Served, results: Sequence[Any]) -> tuple[bytes, int | None]:
    """Write the body of a response.

    Returns:
        The body, and the length of its JSON where binary tensors follow it.

    Raises:
        ModelError: the network's numbers are not finite, which JSON cannot say.
    """
    headers, tails = [], []
    for output in request.outputs:
        rows = np.stack([served.kind.row(result, output.name) for result in results])
        if not output.binary and not np.isfinite(rows).all():
            raise ModelError(f"{served.name}: {output.name}: the network's answer is not finite")
        values = _classes(rows, served.kind, output) if output.classes else rows
        header, tail = output_tensor(output.name, values, binary=output.binary)
        headers.append(header)
        tails.append(tail)
    whole = {"model_name": served.name, "model_version": served.version, "outputs": headers}
    text = json.dumps(whole | ({} if request.id is None else {"id": request.id})).encode()
    is_binary = any(output.binary for output in request.outputs)
    return text + b"".join(tails), len(text) if is_binary else None


def _classes(rows: NDArray[np.float32], kind: Kind[Any, Any], output: _Output) -> list[list[str]]:
    """Write ``value:index:label``, as Triton's classification extension does."""
    assert isinstance(kind, Images)
    best = np.argsort(-rows, axis=-1, kind="stable")[:, : output.classes]
    labels = kind.labels_of(output.name)
    return [
        [f"{row[index]:f}:{index}:{labels[index]}" for index in order]
        for row, order in zip(rows, best.tolist(), strict=True)
    ]
