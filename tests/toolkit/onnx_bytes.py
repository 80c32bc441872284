"""ONNX files by hand: just enough of the protobuf wire format to make foreign, damaged and hostile ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.spec.metadata import SPEC_KEY


def varint(value: int) -> bytes:
    """A base-128 varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes | int) -> bytes:
    """A field: an int as a varint, bytes with their length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def metadata(text: str, key: str = SPEC_KEY) -> bytes:
    """A ``metadata_props`` entry. Appended to a file it takes the place of one with the same key."""
    return field(14, field(1, key.encode()) + field(2, text.encode()))


GRAPH, NODE, INITIALIZER, ATTRIBUTE, TRAINING, FUNCTION = 7, 1, 5, 5, 20, 25
INPUT, OUTPUT = 11, 12  # of a graph

UINT8, INT64, FLOAT = 2, 7, 1  # TensorProto.DataType

LOCATION = field(13, field(1, b"location") + field(2, b"/etc/passwd"))
EXTERNAL_TENSOR = field(8, b"w") + LOCATION + field(14, 1)

EXTERNAL = {
    "initializer": field(GRAPH, field(INITIALIZER, EXTERNAL_TENSOR)),
    "constant node": field(GRAPH, field(NODE, field(ATTRIBUTE, field(5, EXTERNAL_TENSOR)))),
    "list of tensors": field(GRAPH, field(NODE, field(ATTRIBUTE, field(10, EXTERNAL_TENSOR)))),
    "nested graph": field(GRAPH, field(NODE, field(ATTRIBUTE, field(6, field(INITIALIZER, EXTERNAL_TENSOR))))),
    "list of graphs": field(GRAPH, field(NODE, field(ATTRIBUTE, field(11, field(INITIALIZER, EXTERNAL_TENSOR))))),
    "sparse initializer": field(GRAPH, field(15, field(1, EXTERNAL_TENSOR))),
    "sparse indices": field(GRAPH, field(15, field(2, EXTERNAL_TENSOR))),
    "sparse attribute": field(GRAPH, field(NODE, field(ATTRIBUTE, field(22, field(1, EXTERNAL_TENSOR))))),
    "list of sparse": field(GRAPH, field(NODE, field(ATTRIBUTE, field(23, field(1, EXTERNAL_TENSOR))))),
    "function": field(GRAPH, b"") + field(FUNCTION, field(7, field(ATTRIBUTE, field(5, EXTERNAL_TENSOR)))),
    "default of a function": field(FUNCTION, field(11, field(5, EXTERNAL_TENSOR))),
    "training start": field(TRAINING, field(1, field(INITIALIZER, EXTERNAL_TENSOR))),
    "training step": field(TRAINING, field(2, field(INITIALIZER, EXTERNAL_TENSOR))),
    "location without a flag": field(GRAPH, field(INITIALIZER, LOCATION)),
    "flag without a location": field(GRAPH, field(INITIALIZER, field(14, 1))),
}
"""Where a reference to another file can hide."""

_WIDE_TAG = varint(2**32 | 14 << 3) + b"\x01"  # readers that cut tags to 32 bits see data_location here
EXTERNAL["tag of more than 32 bits"] = field(GRAPH, field(INITIALIZER, field(8, b"w") + _WIDE_TAG))
EXTERNAL["value of more than 32 bits"] = field(GRAPH, field(INITIALIZER, field(14, 2**32 + 1)))


def nested(depth: int) -> bytes:
    """A graph within an attribute of a node of a graph, ``depth`` times."""
    graph = b""
    for _ in range(depth):
        graph = field(NODE, field(ATTRIBUTE, field(6, graph)))
    return field(GRAPH, graph)


def node(kind: str, inputs: list[str], output: str, attribute: bytes | None = None) -> bytes:
    """A node with one output, and perhaps an attribute."""
    names = b"".join(field(1, name.encode()) for name in inputs) + field(2, output.encode())
    return names + field(4, kind.encode()) + (b"" if attribute is None else field(5, attribute))


def tensor(name: str, kind: int, values: NDArray[np.generic]) -> bytes:
    """An initializer of a TensorProto.DataType."""
    sizes = b"".join(field(1, size) for size in values.shape)
    return sizes + field(2, kind) + field(8, name.encode()) + field(9, values.tobytes())


def value(name: str, kind: int, shape: list[bytes | int]) -> bytes:
    """An input or output; named sizes vary."""
    sizes = [field(1, size) if isinstance(size, int) else field(2, size) for size in shape]
    kind_and_shape = field(1, kind) + field(2, b"".join(field(1, size) for size in sizes))
    return field(1, name.encode()) + field(2, field(1, kind_and_shape))
