"""The feature: the tensor between encoder and head."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from clip_export.quantization.layers.linears import rebuilt
from clip_export.quantization.ranges import with_outputs


def feature_name(model: onnx.ModelProto) -> str:
    """Name of the float32 tensor ``[batch, dim]`` that the head reads: what is divided by its norm in ``embedding``."""
    (divided,) = (node for node in model.graph.node if "embedding" in node.output)
    return str(divided.input[0])


def head_input_name(model: onnx.ModelProto) -> str:
    """Name of the float32 tensor that the head reads: the feature, or with that of a text behind it."""
    feature = feature_name(model)
    both = (node.output[0] for node in model.graph.node if node.op_type == "Concat" and feature in node.input)
    return next(both, feature)


def feature_of(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """Return the network with the feature among its outputs, and the feature's name."""
    name = feature_name(model)
    return with_outputs(model, [name]), name


def shifted(model: onnx.ModelProto, shift: NDArray[np.float32]) -> onnx.ModelProto:
    """Add ``shift`` ``[dim]`` to the feature, for the head and the embedding alike."""
    name = feature_name(model)
    nodes = []
    for node in model.graph.node:
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        for i, used in enumerate(node.input):
            if used == name:
                changed.input[i] = f"{name}_corrected"
        nodes.append(changed)
        if name in node.output:
            nodes.append(helper.make_node("Add", [name, "vit.correction"], [f"{name}_corrected"]))
    return rebuilt(model, nodes, {"vit.correction": shift.astype(np.float32)})
