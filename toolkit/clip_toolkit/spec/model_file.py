"""What can be learnt of a model file before ONNX Runtime opens it.

The field numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from clip_toolkit.errors import ModelError, SpecError
from clip_toolkit.files.locate import missing
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.metadata import SPEC_KEY, TEXT, kind_of, parsed
from clip_toolkit.spec.text_tower import TextTowerSpec
from clip_toolkit.spec.wire import Span, WireError, fields, mapped, metadata_entries

_MODEL_GRAPH = 7
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
        with path.open("rb") as file, mapped(file, path) as data:
            return _spec(data, path, parse)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing(path) from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except ModelError:
        raise
    except ValueError as error:  # a null byte in the path
        raise ModelError(f"{path}: cannot be read ({error})") from error


def _spec(data: mmap.mmap, path: Path, parse: Callable[[str], Spec]) -> Spec:
    beginning = _WEIGHTS.get(path.suffix.lower())
    if beginning is not None and beginning.match(data):
        raise ModelError(
            f"{path}: holds weights, such as those of a head, and no model. Export it first: clip-export --head {path}"
        )
    whole = (0, len(data))
    try:
        metadata = {key: text.decode() for key, text, _ in metadata_entries(data)}
        has_graph = any(number == _MODEL_GRAPH for number, _ in fields(data, whole))
        refused = next(_refused(data, whole, "model"), None)
    except (WireError, UnicodeDecodeError, RecursionError) as error:
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


def _refused(data: mmap.mmap, message: Span, kind: str) -> Iterator[str]:
    """Yield what is in a message that this runtime does not open."""
    refused, inner = _REFUSED.get(kind, {}), _TENSOR_PATHS[kind]
    for number, value in fields(data, message):
        if number in refused:
            yield refused[number]
        elif kind == "tensor" and (number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value != 0)):
            yield _OUTSIDE
        elif number in inner and isinstance(value, tuple):
            yield from _refused(data, value, inner[number])
