"""int4: the weights of the linear layers in blocks of 4-bit integers, for small files; products in float."""

from __future__ import annotations

import copy

import onnx
from onnxruntime.quantization import QuantFormat

from clip_export.quantization.layers.linears import ENCODER
from clip_export.quantization.layers.patches import with_integer_patches
from clip_export.quantization.layers.tokens import with_integer_tokens
from clip_export.quantization.targets import TARGETS
from clip_export.quantization.weights import matmul_nbits

BLOCKS = (128, 64, 32)
"""Weights that share a scale, from the smallest file to the most exact one."""

INT4_ALPHA = 0.5
"""Strength of the equalisation before."""

_INT8_ACTIVATIONS = (
    4  # of MatMulNBits' accuracy_level: blocks of activations in int8, the fastest that ONNX Runtime has
)


def quantize_int4(model: onnx.ModelProto, block: int, ops: str) -> onnx.ModelProto:
    """Quantize the network's weights to 4 bits.

    Args:
        model: float32, with `clip_export.quantization.layers.linears.with_plain_linears`.
        block: one of `BLOCKS`.
        ops: ``ort`` or ``standard``, as in `clip_toolkit.spec.classifier.ModelSpec`.

    Raises:
        QuantizationError: the installed ONNX Runtime is too old.
    """
    encoder = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.name.startswith(ENCODER)]
    quantizer = matmul_nbits("int4").MatMulNBitsQuantizer(
        copy.deepcopy(model),  # it works in place
        block_size=block,
        is_symmetric=False,
        accuracy_level=_INT8_ACTIVATIONS,
        nodes_to_exclude=[node.name for node in model.graph.node if node.name not in encoder],
        quant_format=QuantFormat.QDQ if ops == "standard" else QuantFormat.QOperator,
    )
    quantizer.process()
    return with_integer_patches(with_integer_tokens(quantizer.model.model), TARGETS["x86"], ops)
