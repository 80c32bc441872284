"""Where a finished graph has the weights of its network, as floating-point numbers, however it stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

_ENCODER = "vit."  # whose linear layers plain graphs hold as ``[inputs, outputs]``


class WeightSources:
    """Adds nodes that make parameters of a graph's own constants: ONNX Runtime runs them once, when it loads."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Look through a graph of `clip_export.quantization.layers.linears.with_plain_linears`, perhaps quantized."""
        self.graph = model.graph
        self.constants = {item.name: item for item in self.graph.initializer}
        self.shapes = {item.name: tuple(item.dims) for item in self.graph.initializer}
        self.unpacking = {node.input[0]: node for node in self.graph.node if node.op_type == "DequantizeLinear"}
        self.packed = {node.input[1]: node for node in self.graph.node if node.op_type == "MatMulNBits"}

    def add(self, parameters: Mapping[str, Tensor], prefix: str) -> None:
        """Make each parameter under its name behind ``prefix``; those that the graph does not hold become constants."""
        for name, value in parameters.items():
            target = f"{prefix}{name}"
            if name.startswith(_ENCODER) and name.endswith(".weight") and value.ndim == 2:
                found = self._layer(name, (value.shape[1], value.shape[0]), f"{target}/stored")
                if found is not None:
                    self._node("Transpose", [found], target, perm=[1, 0])
                    continue
            elif self.shapes.get(name) == tuple(value.shape):
                self._node("Cast", [name], target, to=TensorProto.FLOAT)
                continue
            self._constant(target, value.numpy())

    def _layer(self, name: str, shape: tuple[int, int], target: str) -> str | None:
        """Return the tensor that holds a linear layer's weight, ``[inputs, outputs]``, or None."""
        if self.shapes.get(name) == shape:
            return self._node("Cast", [name], target, to=TensorProto.FLOAT)
        if self.shapes.get(f"{name}_int8") == shape:
            integers = self._node("Cast", [f"{name}_int8"], f"{target}/int8", to=TensorProto.FLOAT)
            return self._node("Mul", [integers, f"{name}_scale"], target)
        if f"{name}_DQ_Q4" in self.unpacking:
            return self._dequantized(self.unpacking[f"{name}_DQ_Q4"], target)
        if f"{name}_Q4" in self.packed:
            return self._unpacked(self.packed[f"{name}_Q4"], shape, target)
        return None

    def _dequantized(self, node: NodeProto, target: str) -> str:
        """Unpack 4-bit weights of standard ONNX, of a copy of them.

        Of weights with two readers ONNX Runtime no longer fuses the one with its product, and that product then rounds
        otherwise.
        """
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = copy.output[0] = target
        for i, name in enumerate(node.input):
            copy.input[i] = f"{target}/{i}"
            constant = TensorProto()
            constant.CopyFrom(self.constants[name])
            constant.name = copy.input[i]
            self.graph.initializer.append(constant)
        self.graph.node.append(copy)
        return target

    def _unpacked(self, product: NodeProto, shape: tuple[int, int], target: str) -> str:
        """Unpack the 4-bit weights of a ``MatMulNBits``, each less the zero point of its block, times its scale.

        Two numbers share a byte, the first in its lower half; the weights are ``[outputs, blocks, block / 2]``.
        """
        _, weights, scales, zeros, *_ = product.input
        inputs, outputs = shape
        blocks = self.shapes[weights][1]
        numbers = self._halves(weights, f"{target}/weights", (outputs, blocks, -1), blocks)
        offsets = self._halves(zeros, f"{target}/zeros", (outputs, -1, 1), blocks)
        moved = self._node("Sub", [numbers, offsets], f"{target}/moved")
        each = self._reshaped(scales, f"{target}/scales", (outputs, blocks, 1))
        rows = self._reshaped(self._node("Mul", [moved, each], f"{target}/scaled"), f"{target}/rows", (outputs, -1))
        return self._node("Transpose", [self._first(rows, f"{target}/cut", inputs)], target, perm=[1, 0])

    def _halves(self, bytes_: str, target: str, shape: Sequence[int], blocks: int) -> str:
        """Split bytes into two numbers each, as float32 of a shape, of whose second axis the first ``blocks`` count."""
        mask, shift = self._constant(f"{target}/mask", np.uint8(15)), self._constant(f"{target}/shift", np.uint8(4))
        low = self._node("BitwiseAnd", [bytes_, mask], f"{target}/low")
        high = self._node("BitShift", [bytes_, shift], f"{target}/high", direction="RIGHT")
        last = self._constant(f"{target}/last", np.array([-1], np.int64))
        both = [self._node("Unsqueeze", [half, last], f"{half}_last") for half in (low, high)]
        joined = self._node("Concat", both, f"{target}/both", axis=-1)
        numbers = self._node("Cast", [joined], f"{target}/float", to=TensorProto.FLOAT)
        return self._first(self._reshaped(numbers, f"{target}/shaped", shape), target, blocks)

    def _first(self, name: str, target: str, count: int) -> str:
        """Cut off what lies behind the first ``count`` along the second axis."""
        bounds = {"start": 0, "end": count, "axis": 1}
        given = [self._constant(f"{target}/{part}", np.array([value], np.int64)) for part, value in bounds.items()]
        return self._node("Slice", [name, *given], target)

    def _reshaped(self, name: str, target: str, shape: Sequence[int]) -> str:
        return self._node("Reshape", [name, self._constant(f"{target}/shape", np.array(shape, np.int64))], target)

    def _node(self, kind: str, inputs: Sequence[str], target: str, **attributes: Any) -> str:
        self.graph.node.append(helper.make_node(kind, inputs, [target], target, **attributes))
        return target

    def _constant(self, name: str, value: NDArray[Any] | np.uint8) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name
