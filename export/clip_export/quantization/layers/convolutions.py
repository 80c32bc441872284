"""Dense convolutions of traced towers in 8 bits, by standard operators that ONNX Runtime computes in integers.

Depthwise ones stay in float: they took longer in integers (docs/decisions.md). So do patch embeddings, whose patches do
not overlap: see `clip_export.quantization.layers.patches`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from clip_export.quantization.layers.linears import module_of, rebuilt
from clip_export.quantization.targets import Target
from clip_export.quantization.weights import Range, activation_parameters, weight_scale

TOWER = "vit.tower"
"""What the names of a traced tower's modules begin with."""

_LARGEST_BIAS = 2**30  # in 32 bits, in which a sum has to fit as well


def find_convolutions(model: onnx.ModelProto) -> dict[str, NodeProto]:
    """Return the convolutions that may become integers, by the tensor that each makes.

    Args:
        model: a graph with `clip_export.quantization.layers.linears.with_plain_linears`.
    """
    constants = {item.name for item in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "Conv" and module_of(node).startswith(TOWER)]
    return {node.output[0]: node for node in nodes if set(node.input[1:]) <= constants and _is_dense(node)}


def with_integer_convolutions(
    model: onnx.ModelProto, target: Target, ranges: Mapping[str, Range], left: frozenset[str]
) -> onnx.ModelProto:
    """Quantize what `find_convolutions` finds, but those whose output is named in ``left``.

    Args:
        model: the network.
        target: processor.
        ranges: least and largest value of what each convolution reads and makes.
        left: outputs of convolutions that stay in float.
    """
    found = {name: node for name, node in find_convolutions(model).items() if name not in left}
    values = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    nodes: list[NodeProto] = []
    constants: dict[str, NDArray[Any]] = {}
    for node in model.graph.node:
        if node.output[0] in found:
            made, new = _integers(node, values, target, ranges)
            nodes += made
            constants |= new
        else:
            nodes.append(node)
    return rebuilt(model, nodes, constants) if found else model


def _integers(
    node: NodeProto, values: Mapping[str, NDArray[np.float32]], target: Target, ranges: Mapping[str, Range]
) -> tuple[list[NodeProto], dict[str, NDArray[Any]]]:
    source, weight, output = node.input[0], values[node.input[1]], node.output[0]
    bias = values[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight), np.float32)
    input_scale, input_zero = activation_parameters(ranges[source], target)
    rows = weight.reshape(len(weight), -1)
    scale = np.maximum(weight_scale(rows.T, target), np.abs(bias) / (input_scale * _LARGEST_BIAS)).astype(np.float32)
    output_scale, output_zero = activation_parameters(ranges[output], target)
    sums = input_scale * scale
    parts: dict[str, tuple[Any, Any, Any]] = {
        "source": (None, input_scale, input_zero),
        "weight": (
            np.rint(rows / scale[:, None]).astype(np.int8).reshape(weight.shape),
            scale,
            np.zeros(len(weight), np.int8),
        ),
        "bias": (np.rint(bias / sums).astype(np.int32), sums, np.zeros(len(weight), np.int32)),
        "output": (None, output_scale, output_zero),
    }
    constants: dict[str, NDArray[Any]] = {}
    names = {part: tuple(f"{output}.{part}_{kind}" for kind in ("int8", "scale", "zero")) for part in parts}
    for part, triple in parts.items():
        constants |= {
            name: np.asarray(item) for name, item in zip(names[part], triple, strict=True) if item is not None
        }
    convolution = NodeProto()
    convolution.CopyFrom(node)
    del convolution.input[:]
    convolution.input.extend(f"{output}.{part}" for part in ("source", "weight", "bias"))
    convolution.output[0] = f"{output}.float"
    return [
        helper.make_node("QuantizeLinear", [source, *names["source"][1:]], [names["source"][0]]),
        helper.make_node("DequantizeLinear", names["source"], [f"{output}.source"]),
        helper.make_node("DequantizeLinear", names["weight"], [f"{output}.weight"], axis=0),
        helper.make_node("DequantizeLinear", names["bias"], [f"{output}.bias"], axis=0),
        convolution,
        helper.make_node("QuantizeLinear", [f"{output}.float", *names["output"][1:]], [names["output"][0]]),
        helper.make_node("DequantizeLinear", names["output"], [output]),
    ], constants


def _is_dense(node: NodeProto) -> bool:
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    kernel = list(attributes.get("kernel_shape", ()))
    is_patches = max(kernel, default=1) > 1 and list(attributes.get("strides", ())) == kernel
    return attributes.get("group", 1) == 1 and not is_patches
