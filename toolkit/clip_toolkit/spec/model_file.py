"""What can be learnt of a model file before ONNX Runtime opens it.

A reader of the protobuf wire format, as far as it takes to find the metadata and any reference to other files. The
field numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from clip_toolkit.errors import ModelError, ModelNotFoundError, SpecError
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.metadata import SPEC_KEY, TEXT, kind_of, parsed
from clip_toolkit.spec.text_tower import TextTowerSpec

_LARGEST_TAG = 2**32 - 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 13, 14

# For each message, the fields in which a tensor can hide, and the message each of them holds.
_TENSOR_PATHS: dict[str, dict[int, str]] = {
    "model": {_MODEL_GRAPH: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}

# How files of weights begin, by suffix: PyTorch's, the new and the old ones, and safetensors.
_PYTORCH = re.compile(rb"PK\x03\x04|\x80\x02")
_WEIGHTS = {".pt": _PYTORCH, ".pth": _PYTORCH, ".safetensors": re.compile(rb".{8}\{", re.DOTALL)}

# What a small file could run for ever with, or that unfolds to any size; clip-export writes none of it.
_REFUSED: dict[str, dict[int, str]] = {
    "model": {20: "training steps", 25: "functions"},
    "attribute": {6: "a graph inside a node, such as a loop", 11: "graphs inside a node, such as a loop"},
}

_OUTSIDE = "weights in other files"


Span = tuple[int, int]
"""First byte and end of a message inside the file."""

Spec = TypeVar("Spec")


def read_spec(path: str | Path) -> ModelSpec:
    """Read the spec of a classifier and refuse a file that this runtime must not open.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: the file is empty, not ONNX, cut short, or keeps weights in other files.
        SpecError: the file was not written by clip-export, or is no classifier, or its metadata is damaged or too new.
    """
    return _read(path, ModelSpec.from_json)


def read_text_spec(path: str | Path) -> TextTowerSpec:
    """Read the spec of a text tower's file; raises what `read_spec` does."""
    return _read(path, TextTowerSpec.from_json)


def read_any_spec(path: str | Path) -> ModelSpec | TextTowerSpec:
    """Read the spec of whatever the file holds; raises what `read_spec` does."""
    return _read(path, parse_any_spec)


def parse_any_spec(text: str) -> ModelSpec | TextTowerSpec:
    """Read the metadata of whatever a file holds.

    Raises:
        SpecError: as in `ModelSpec.from_json`.
    """
    return (TextTowerSpec if kind_of(parsed(text)) == TEXT else ModelSpec).from_json(text)


def _read(path: str | Path, parse: Callable[[str], Spec]) -> Spec:
    path = Path(path)
    try:
        with path.open("rb") as file, _mapped(file.fileno(), path) as data:
            return _spec(data, path, parse)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelNotFoundError(
            f"{path}: there is no such model file. Make one with clip-export, or name another with --model."
        ) from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except ModelError:
        raise
    except ValueError as error:  # a null byte in the path
        raise ModelError(f"{path}: cannot be read ({error})") from error


def _mapped(descriptor: int, path: Path) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise ModelError(f"{path}: the file is empty. Export the model again.") from error


def _spec(data: mmap.mmap, path: Path, parse: Callable[[str], Spec]) -> Spec:
    beginning = _WEIGHTS.get(path.suffix.lower())
    if beginning is not None and beginning.match(data):
        raise ModelError(
            f"{path}: holds weights, such as those of a head, and no model. Export it first: clip-export --head {path}"
        )
    whole = (0, len(data))
    try:
        metadata = dict(_metadata(data, whole))
        has_graph = any(number == _MODEL_GRAPH for number, _ in _fields(data, whole))
        refused = next(_refused(data, whole, "model"), None)
    except (_WireError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{path}: expected an ONNX file, got something else or a damaged one ({error})") from error
    if not has_graph:
        raise ModelError(f"{path}: expected an ONNX file, but there is no graph in it")
    if refused is not None:
        raise ModelError(f"{path}: has {refused}, which is refused for safety. Export it again, as one file.")
    if SPEC_KEY not in metadata:
        raise SpecError(f"{path}: an ONNX file, but without '{SPEC_KEY}' metadata. Only files of clip-export can run.")
    try:
        return parse(metadata[SPEC_KEY])
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def _metadata(data: mmap.mmap, model: Span) -> Iterator[tuple[str, str]]:
    for number, entry in _fields(data, model):
        if number == _MODEL_METADATA and isinstance(entry, tuple):
            pair = {key: data[slice(*text)].decode() for key, text in _fields(data, entry) if isinstance(text, tuple)}
            yield pair.get(_ENTRY_KEY, ""), pair.get(_ENTRY_VALUE, "")


def _refused(data: mmap.mmap, message: Span, kind: str) -> Iterator[str]:
    """Yield what is in a message that this runtime does not open."""
    refused, inner = _REFUSED.get(kind, {}), _TENSOR_PATHS[kind]
    for number, value in _fields(data, message):
        if number in refused:
            yield refused[number]
        elif kind == "tensor" and (number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value != 0)):
            yield _OUTSIDE
        elif number in inner and isinstance(value, tuple):
            yield from _refused(data, value, inner[number])


class _WireError(ValueError):
    """The bytes do not follow the protobuf wire format."""


def _fields(data: mmap.mmap, message: Span) -> Iterator[tuple[int, int | Span]]:
    """Yield number and value of each field: an int for varints, where the bytes are for everything else."""
    position, end = message
    while position < end:
        tag, position = _varint(data, position, end)
        number, wire_type = tag >> 3, tag & 7
        if number == 0 or tag > _LARGEST_TAG:  # other readers cut a tag to 32 bits and would see another field
            raise _WireError(f"field number {number}")
        if wire_type == _VARINT:
            value, position = _varint(data, position, end)
            yield number, value
            continue
        length, position = _length(data, position, end, wire_type)
        if position + length > end:
            raise _WireError("cut short")
        yield number, (position, position + length)
        position += length


def _length(data: mmap.mmap, position: int, end: int, wire_type: int) -> tuple[int, int]:
    if wire_type == _BYTES:
        return _varint(data, position, end)
    if wire_type == _FIXED64:
        return 8, position
    if wire_type == _FIXED32:
        return 4, position
    raise _WireError(f"wire type {wire_type}")


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise _WireError("cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _WireError("a varint of more than 10 bytes")
