"""int8: weights per output channel, activations per tensor, everything between the linear layers in float.

Operators of ONNX Runtime that fuse the conversion to float and the bias, or QuantizeLinear and DequantizeLinear around
standard ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from clip_export.quantization.layers.attention import with_integer_attention
from clip_export.quantization.layers.convolutions import with_integer_convolutions
from clip_export.quantization.layers.linears import Constants, Linear, replace_linears
from clip_export.quantization.layers.patches import PATCH, with_integer_patches
from clip_export.quantization.layers.tokens import with_integer_tokens
from clip_export.quantization.targets import Target
from clip_export.quantization.weights import Range, activation_parameters, microsoft_node, quantized_weight


@dataclass(frozen=True)
class Int8Scheme:
    """How the linear layers become integers.

    Attributes:
        target: processor.
        ops: ``ort`` or ``standard``, as in `clip_toolkit.spec.classifier.ModelSpec`.
        ranges: least and largest value of each activation tensor, or None to find them at run time, batch by batch,
            which leaves convolutions in float.
        float_layers: names of layers that stay in float; of convolutions those of the tensors that they make.
        fine_layers: names of layers whose activations are the sum of two 8-bit numbers, 16 bits in all; static only.
        weights: integers and scales of layers whose weights are not simply at their nearest integers.
    """

    target: Target
    ops: str
    ranges: Mapping[str, Range] | None
    float_layers: frozenset[str] = frozenset()
    fine_layers: frozenset[str] = frozenset()
    weights: Mapping[str, tuple[NDArray[np.int8], NDArray[np.float32]]] = field(default_factory=dict)


def quantize_int8(model: onnx.ModelProto, scheme: Int8Scheme) -> onnx.ModelProto:
    """Quantize the network to int8.

    Args:
        model: float32, with `clip_export.quantization.layers.linears.with_plain_linears`.
        scheme: how.
    """
    shared: set[str] = set()

    def replacement(layer: Linear) -> tuple[Sequence[NodeProto], Constants] | None:
        if layer.name in scheme.float_layers:
            return None
        return _Spelling(scheme, layer, shared).nodes()

    quantized = with_integer_tokens(replace_linears(model, replacement))
    if scheme.ranges is not None:
        quantized = with_integer_convolutions(quantized, scheme.target, scheme.ranges, scheme.float_layers)
    if scheme.ops == "ort":
        quantized = with_integer_attention(quantized, scheme.target)
    if PATCH in scheme.float_layers:
        return quantized
    rounded = scheme.weights.get(PATCH)
    return with_integer_patches(quantized, scheme.target, scheme.ops, (lambda _: rounded) if rounded else None)


class _Spelling:
    """The nodes of one layer. Layers that read the same tensor share its quantization, noted in ``shared``."""

    def __init__(self, scheme: Int8Scheme, layer: Linear, shared: set[str]) -> None:
        self.scheme, self.layer, self.shared = scheme, layer, shared
        self.weight, self.weight_scale = f"{layer.name}.weight_int8", f"{layer.name}.weight_scale"
        weight, scale = scheme.weights.get(layer.name) or quantized_weight(layer.weight, scheme.target)
        self.constants: dict[str, NDArray[Any]] = {self.weight: weight, self.weight_scale: scale}
        self.bias = f"{layer.name}.bias" if layer.bias is not None else ""
        if layer.bias is not None:
            self.constants[self.bias] = layer.bias

    def nodes(self) -> tuple[Sequence[NodeProto], Constants]:
        if self.scheme.ranges is None:
            nodes = self._standard_dynamic() if self.scheme.ops == "standard" else self._dynamic()
        elif self.layer.name in self.scheme.fine_layers:
            nodes = self._fine(self.scheme.ranges[self.layer.source])
        else:
            nodes = self._static(self.layer.source, self.scheme.ranges[self.layer.source], self.bias, self.layer.output)
        return nodes, self.constants

    def _once(self, *nodes: NodeProto) -> list[NodeProto]:
        """Those of ``nodes`` whose output no earlier layer has made."""
        new = [node for node in nodes if node.output[0] not in self.shared]
        self.shared.update(node.output[0] for node in new)
        return new

    def _quantized(self, source: str, range_: Range) -> tuple[list[NodeProto], tuple[str, str, str]]:
        """Return the node that quantizes a tensor, and names of the integers, their scale and zero point."""
        integers, scale, zero = f"{source}_int8", f"{source}_scale", f"{source}_zero"
        value, zero_value = activation_parameters(range_, self.scheme.target)
        self.constants |= {scale: np.asarray(value), zero: np.asarray(zero_value)}
        return self._once(helper.make_node("QuantizeLinear", [source, scale, zero], [integers])), (
            integers,
            scale,
            zero,
        )

    def _static(self, source: str, range_: Range, bias: str, output: str) -> list[NodeProto]:
        nodes, (integers, scale, zero) = self._quantized(source, range_)
        if self.scheme.ops == "ort":
            inputs = [integers, self.weight, scale, self.weight_scale, zero, "", bias]
            return [*nodes, microsoft_node("MatMulIntegerToFloat", inputs, output)]
        values, weight = f"{integers}_dequantized", f"{self.weight}_dequantized"
        nodes += self._once(helper.make_node("DequantizeLinear", [integers, scale, zero], [values]))
        nodes += self._once(helper.make_node("DequantizeLinear", [self.weight, self.weight_scale], [weight], axis=1))
        return [*nodes, *_with_bias(helper.make_node("MatMul", [values, weight], [output]), bias)]

    def _fine(self, range_: Range) -> list[NodeProto]:
        """Once for the activations and once for what their rounding left over, a step of 1/255 as wide."""
        source, name = self.layer.source, self.layer.name
        nodes, (integers, scale, zero) = self._quantized(source, range_)
        step = activation_parameters(range_, self.scheme.target)[0]
        coarse, rest = f"{source}_coarse", f"{source}_rest"
        nodes += self._once(
            helper.make_node("DequantizeLinear", [integers, scale, zero], [coarse]),
            helper.make_node("Sub", [source, coarse], [rest]),
        )
        nodes += self._static(source, range_, self.bias, f"{name}.coarse")
        nodes += self._static(rest, (float(-step) / 2, float(step) / 2), "", f"{name}.rest")
        return [*nodes, helper.make_node("Add", [f"{name}.coarse", f"{name}.rest"], [self.layer.output])]

    def _dynamic(self) -> list[NodeProto]:
        inputs = [self.layer.source, self.weight, self.weight_scale, "", self.bias]
        return [microsoft_node("DynamicQuantizeMatMul", inputs, self.layer.output)]

    def _standard_dynamic(self) -> list[NodeProto]:
        source, name = self.layer.source, self.layer.name
        integers, scale, zero = f"{source}_uint8", f"{source}_scale", f"{source}_zero"
        sums, floats, both = f"{name}.sums", f"{name}.floats", f"{name}.scale"
        return [
            *self._once(helper.make_node("DynamicQuantizeLinear", [source], [integers, scale, zero])),
            helper.make_node("MatMulInteger", [integers, self.weight, zero], [sums]),
            helper.make_node("Cast", [sums], [floats], to=TensorProto.FLOAT),
            helper.make_node("Mul", [scale, self.weight_scale], [both]),
            *_with_bias(helper.make_node("Mul", [floats, both], [self.layer.output]), self.bias),
        ]


def _with_bias(node: NodeProto, bias: str) -> list[NodeProto]:
    """Return the node, and the addition of the bias if there is one."""
    if not bias:
        return [node]
    output = node.output[0]
    node.output[0] = f"{output}_product"
    return [node, helper.make_node("Add", [node.output[0], bias], [output])]
