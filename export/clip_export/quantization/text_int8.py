"""A text tower with 8-bit weights: a quarter of the size.

Activations are rounded by the operator itself, in blocks within one token, where the processor has a fast way to.
Dynamic ranges, as image towers may have, span a batch with its padding: one text would move the embedding of another.
"""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from clip_export.quantization.linears import rebuilt
from clip_toolkit.errors import QuantizationError

_BITS, _BLOCK, _INT8_ACTIVATIONS = 8, 128, 4  # of MatMulNBits: the last one is its accuracy_level

_LOOK_UPS = ("Gather", "GatherND")
_WORDS, _SCALES = "text.words_int8", "text.words_scale"
_LARGEST = 127  # symmetric


def quantize_text_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with its linear layers and its table of words in 8 bits.

    Args:
        model: float32, of `clip_export.text_network.text_graph` with the operators of ONNX Runtime; left as it is.

    Raises:
        QuantizationError: the installed ONNX Runtime is too old.
    """
    try:
        from onnxruntime.quantization import QuantFormat
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
    except ImportError as error:
        raise QuantizationError(
            "int8: needs ONNX Runtime 1.22 or newer. Install: pip install -U onnxruntime"
        ) from error
    config = DefaultWeightOnlyQuantConfig(
        block_size=_BLOCK,
        is_symmetric=True,
        accuracy_level=_INT8_ACTIVATIONS,
        quant_format=QuantFormat.QOperator,
        bits=_BITS,
    )
    quantizer = MatMulNBitsQuantizer(copy.deepcopy(model), algo_config=config)  # it works in place
    quantizer.process()
    return _with_integer_words(quantizer.model.model)


def _with_integer_words(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each word's row as int8 and a scale of its own: look up both, multiply."""
    constants = {item.name: item for item in model.graph.initializer}
    (look_up,) = (node for node in model.graph.node if node.op_type in _LOOK_UPS and node.input[0] in constants)
    table = numpy_helper.to_array(constants[look_up.input[0]])
    scale = np.maximum(np.abs(table).max(1, keepdims=True) / _LARGEST, np.finfo(np.float32).tiny).astype(np.float32)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += _integer_look_up(node) if node is look_up else [node]
    return rebuilt(model, nodes, {_WORDS: np.rint(table / scale).astype(np.int8), _SCALES: scale})


def _integer_look_up(node: NodeProto) -> list[NodeProto]:
    """In the place of a node that looks up rows of the table in float."""
    rows, scales, words = (f"{node.output[0]}_{part}" for part in ("int8", "scale", "float"))
    _, indices = node.input
    return [
        helper.make_node(node.op_type, [_WORDS, indices], [rows], f"{node.name}_int8"),
        helper.make_node(node.op_type, [_SCALES, indices], [scales], f"{node.name}_scale"),
        helper.make_node("Cast", [rows], [words], f"{node.name}_cast", to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [words, scales], [node.output[0]], f"{node.name}_mul"),
    ]
