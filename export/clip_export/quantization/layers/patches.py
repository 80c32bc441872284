"""The patch embedding in integers: pixels are uint8 already, so that only its weights are rounded.

As a product, not as ConvInteger, which ONNX Runtime computes several times slower.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from clip_export.quantization.layers.linears import rebuilt
from clip_export.quantization.targets import Target
from clip_export.quantization.weights import microsoft_node, quantized_weight

PATCH = "vit.patch"
"""Name of the layer."""

_FORM = ["Transpose", "Cast", "Conv", "Reshape", "Transpose"]  # and a Pad for the class token, if there is one

Rounding = Callable[[NDArray[np.float32]], tuple[NDArray[np.int8], NDArray[np.float32]]]


def with_integer_patches(
    model: onnx.ModelProto, target: Target, ops: str, rounding: Rounding | None = None
) -> onnx.ModelProto:
    """Turn the patch convolution into a product of uint8 pixels and int8 weights.

    It is left as it is where its input is float, and where the table of positions is resampled to each image's shape.

    ``[batch, size, size, 3]`` becomes ``[batch, patches, patch * patch * 3]`` by a transposition alone: patches do not
    overlap. A class token gets a row of zeros, whose product is zero. A traced tower keeps what it begins with.

    Args:
        model: the network.
        target: processor.
        ops: ``ort`` or ``standard``.
        rounding: from weights ``[patch * patch * 3, width]`` to integers and scales; default the nearest integers.
    """
    if not has_patches(model):
        return model
    nodes = list(model.graph.node)
    start = next((i for i, node in enumerate(nodes) if node.op_type == "Transpose" and "pixels" in node.input), None)
    if start is None:
        return model
    tables = {item.name for item in model.graph.initializer if len(item.dims) == 3}
    end = next((i for i in range(start, len(nodes)) if nodes[i].op_type == "Add" and tables & {*nodes[i].input}), None)
    if end is None:
        return model
    chain, addition = nodes[start:end], nodes[end]
    if [node.op_type for node in chain if node.op_type != "Pad"] != _FORM:
        raise AssertionError("the patch embedding has another form than clip_export.graph.vit gives it")
    rounding = rounding or functools.partial(quantized_weight, target=target)
    positions = next(name for name in addition.input if name not in chain[-1].output)
    made, constants = _patch_nodes(model, positions, addition.output[0], rounding, ops)
    return rebuilt(model, [*nodes[:start], *made, *nodes[end + 1 :]], constants)


def has_patches(model: onnx.ModelProto) -> bool:
    """Tell whether the network, with plain linears, has the patch embedding of the canonical vision transformer."""
    return any(item.name == f"{PATCH}.weight" for item in model.graph.initializer)


def patch_rows(images: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Patches of images ``[batch, size, size, 3]`` as the product reads them: float32 ``[rows, side * side * 3]``."""
    batch, size, _, channels = images.shape
    tiles = images.reshape(batch, size // side, side, size // side, side * channels).transpose(0, 1, 3, 2, 4)
    return tiles.reshape(-1, side * side * channels).astype(np.float32)


def _patch_nodes(
    model: onnx.ModelProto, positions_name: str, output: str, rounding: Rounding, ops: str
) -> tuple[list[NodeProto], dict[str, NDArray[Any]]]:
    values = {item.name: item for item in model.graph.initializer}
    weight, bias, positions = (
        numpy_helper.to_array(values[name]) for name in (f"{PATCH}.weight", f"{PATCH}.bias", positions_name)
    )
    width, _, side, _ = weight.shape
    grid = math.isqrt(positions.shape[1])
    class_tokens = positions.shape[1] - grid * grid  # one or none
    offset = positions.copy()
    offset[:, class_tokens:] += bias
    integers, scale = rounding(weight.transpose(2, 3, 1, 0).reshape(-1, width))
    constants: dict[str, NDArray[Any]] = {
        f"{PATCH}.weight_int8": integers,
        f"{PATCH}.weight_scale": scale,
        f"{PATCH}.offset": offset,
        f"{PATCH}.tiles": np.array([-1, grid, side, grid, side * 3]),
        f"{PATCH}.rows": np.array([-1, grid * grid, side * side * 3]),
        f"{PATCH}.room": np.array([0, class_tokens, 0, 0, 0, 0]),
        f"{PATCH}.one": np.array(1, np.float32),
        f"{PATCH}.zero": np.array(0, np.uint8),
    }
    tiles, turned, patches, tokens, product = (
        f"{PATCH}.{name}_of_pixels" for name in ("tiles", "turned", "patches", "tokens", "product")
    )
    rows = tokens if class_tokens else patches
    nodes = [
        helper.make_node("Reshape", ["pixels", f"{PATCH}.tiles"], [tiles]),
        helper.make_node("Transpose", [tiles], [turned], perm=[0, 1, 3, 2, 4]),
        helper.make_node("Reshape", [turned, f"{PATCH}.rows"], [patches]),
        *([helper.make_node("Pad", [patches, f"{PATCH}.room"], [tokens])] if class_tokens else []),
        *_pixel_product(rows, product, ops),
        helper.make_node("Add", [product, f"{PATCH}.offset"], [output]),
    ]
    return nodes, constants


def _pixel_product(rows: str, product: str, ops: str) -> list[NodeProto]:
    weight, scale, one, zero = (f"{PATCH}.{name}" for name in ("weight_int8", "weight_scale", "one", "zero"))
    if ops == "ort":
        return [microsoft_node("MatMulIntegerToFloat", [rows, weight, one, scale, zero], product)]
    return [
        helper.make_node("DequantizeLinear", [rows, one, zero], [f"{rows}_float"]),
        helper.make_node("DequantizeLinear", [weight, scale], [f"{weight}_float"], axis=1),
        helper.make_node("MatMul", [f"{rows}_float", f"{weight}_float"], [product]),
    ]
