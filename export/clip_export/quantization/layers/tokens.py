"""The table of a text tower's tokens in 8 bits: a third of CLIP's text tower, and most of one that knows many words.

A row is looked up and never multiplied with another, so that rounding costs its own precision alone.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from clip_export.quantization.layers.linears import rebuilt

TABLE = "text.tokens"
"""Name of the layer."""

_LARGEST = 127


def with_integer_tokens(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store the rows of the token table in int8, each with a scale; leave a network that reads no text."""
    found = _lookup(model)
    if found is None:
        return model
    node, table = found
    integers, scale = _rounded(numpy_helper.to_array(table))
    made = [made for old in model.graph.node for made in (_nodes(old) if old is node else [old])]
    return rebuilt(model, made, {f"{TABLE}.weight_int8": integers, f"{TABLE}.weight_scale": scale})


def _lookup(model: onnx.ModelProto) -> tuple[NodeProto, onnx.TensorProto] | None:
    """Return the node that looks up tokens, and the table that it looks them up in."""
    values = {item.name: item for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
    sources = {output: node.input for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type in ("Gather", "GatherND") and node.input[0] in values:
            indices = node.input[1]
            if "input_ids" in (indices, *sources.get(indices, ())):
                return node, values[node.input[0]]
    return None


def _nodes(lookup: NodeProto) -> list[NodeProto]:
    output = lookup.output[0]
    rows, scales, floats = f"{output}_int8", f"{output}_scale", f"{output}_float"
    found = [NodeProto(), NodeProto()]
    for node, kind, name in zip(found, ("weight_int8", "weight_scale"), (rows, scales), strict=True):
        node.CopyFrom(lookup)
        node.input[0], node.output[0], node.name = f"{TABLE}.{kind}", name, f"{TABLE}/{kind}"
    return [
        *found,
        helper.make_node("Cast", [rows], [floats], f"{TABLE}/float", to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [floats, scales], [output], f"{TABLE}/product"),
    ]


def _rounded(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Each row ``[tokens, width]`` at its nearest integers, and scales ``[tokens, 1]``."""
    largest = np.maximum(np.abs(table).max(1, keepdims=True), np.finfo(np.float32).tiny * 2**8)
    scale = (largest / _LARGEST).astype(np.float32)
    return np.rint(table / scale).astype(np.int8), scale
