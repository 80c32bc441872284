"""Query, key, value and attention as one operator of ONNX Runtime.

It multiplies head by head into the layout that attention reads. Apart, a Split and three transpositions stand between
the product and the scores: 2 to 8 % of the time with two threads, between -3 and 1 % with one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import NodeProto, ValueInfoProto, helper

from clip_export.quantization.layers.linears import rebuilt
from clip_export.quantization.targets import Target

MOST_TOKENS = 300
"""Longer sequences keep the operators apart: QAttention holds the scores of all heads at once, tokens times tokens, as
MultiHeadAttention does not. 8 images of 577 tokens and 12 heads took 139 MB more, and no less time."""


def with_integer_attention(model: onnx.ModelProto, target: Target) -> onnx.ModelProto:
    """Use QAttention wherever query, key and value are the thirds of one static 8-bit product.

    Args:
        model: with the shapes of its tensors, for `MOST_TOKENS`.
        target: processor; the operator takes unsigned activations alone.
    """
    if target.activation is not np.uint8:
        return model
    makers = {output: node for node in model.graph.node for output in node.output}
    tokens = {item.name: _tokens(item) for item in model.graph.value_info}
    fused: dict[str, NodeProto] = {}  # by the output of each attention
    gone: set[str] = set()  # outputs of the nodes that it replaces
    for node in model.graph.node:
        if node.op_type == "MultiHeadAttention" and tokens[node.output[0]] <= MOST_TOKENS:
            product = _common_product(node, makers)
            if product is not None:
                fused[node.output[0]] = _fused(product, node)
                gone |= {product.output[0], node.input[0]}
    nodes = [fused.get(node.output[0], node) for node in model.graph.node if node.output[0] not in gone]
    return rebuilt(model, nodes, {})


def _common_product(attention: NodeProto, makers: Mapping[str, NodeProto]) -> NodeProto | None:
    """Return the integer product that is split into the inputs of an attention, if that is all they are."""
    split = makers.get(attention.input[0])
    if split is None or list(split.output) != list(attention.input):
        return None
    product = makers.get(split.input[0])
    return product if product is not None and product.op_type == "MatMulIntegerToFloat" else None


def _tokens(tensor: ValueInfoProto) -> int:
    """Of a tensor ``[batch, tokens, width]``; 0 where that varies, as it does in texts, which are short."""
    sizes = tensor.type.tensor_type.shape.dim
    return sizes[1].dim_value if len(sizes) == 3 else 0


def _fused(product: NodeProto, attention: NodeProto) -> NodeProto:
    integers, weight, scale, weight_scale, zero, _, bias = product.input
    inputs = [integers, weight, bias, scale, weight_scale, "", zero]
    heads = next(attribute.i for attribute in attention.attribute if attribute.name == "num_heads")
    return helper.make_node("QAttention", inputs, attention.output, domain="com.microsoft", num_heads=heads)
