"""A text tower with 8-bit weights: a quarter of the size.

Activations are rounded by the operator itself, in blocks within one token, where the processor has a fast way to.
Dynamic ranges, as image towers may have, span a batch with its padding: one text would move the embedding of another.
"""

from __future__ import annotations

import copy

import onnx

from clip_export.quantization.layers.tokens import with_integer_tokens
from clip_toolkit.errors import QuantizationError

_BITS, _BLOCK, _INT8_ACTIVATIONS = 8, 128, 4  # of MatMulNBits: the last one is its accuracy_level


def quantize_text_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with its linear layers and its table of words in 8 bits.

    Args:
        model: float32, of `clip_export.graph.text_network.text_graph` with ONNX Runtime's operators; left as it is.

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
    return with_integer_tokens(quantizer.model.model)
