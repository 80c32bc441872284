"""fp16: half the size, for GPUs that have half-precision units; inputs and outputs keep their types."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from clip_export.graph.large import FLOAT32, fits, size_of, without_weights
from clip_export.quantization.evidence.feeds import Feeds
from clip_export.quantization.ranges import run, with_outputs
from clip_toolkit.errors import QuantizationError

LARGEST = float(np.finfo(np.float16).max)

_PREPROCESSED = "pixels"  # the tensor that the encoder starts from; before it there are integers only
_FLOAT_OPERATORS = ("Add", "Conv", "Gelu", "Gemm", "LayerNormalization", "MatMul", "MultiHeadAttention", "QuickGelu")
_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


def quantize_fp16(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    """Convert the network to half precision.

    Args:
        model: float32.
        feeds: examples as the network takes them, to look for overflow with.

    Raises:
        QuantizationError: a weight or an activation is too large for half precision.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    _check_weights(model)
    _check_activations(model, feeds)
    halved: onnx.ModelProto = convert_float_to_float16(
        _with_halved_weights(model),
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, "Resize"],
    )
    return halved


def _check_weights(model: onnx.ModelProto) -> None:
    for item in model.graph.initializer:
        value = numpy_helper.to_array(item)
        if value.dtype == np.float32 and np.abs(value).max(initial=0.0) > LARGEST:
            raise _overflow(model, f"the weight {item.name}", float(np.abs(value).max()))


def _with_halved_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with all shapes told, and its matrices in half precision.

    Those are taken from the converter, which passes over each a dozen times.
    """
    bare = _with_types(model)
    del bare.graph.initializer[:]
    for item in model.graph.initializer:
        is_matrix = item.data_type == onnx.TensorProto.FLOAT and len(item.dims) > 1
        bare.graph.initializer.append(_halved(item) if is_matrix else item)
    return bare


def _with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network without its larger weights, and with the types and shapes of its tensors."""
    return onnx.shape_inference.infer_shapes(without_weights(model))


def _halved(item: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float16), item.name)


def _check_activations(model: onnx.ModelProto, feeds: Feeds) -> None:
    nodes = list(model.graph.node)
    start = max((i + 1 for i, node in enumerate(nodes) if _PREPROCESSED in node.output), default=0)
    counts = {info.name for info in _with_types(model).graph.value_info if info.type.tensor_type.elem_type in _INTEGERS}
    names = [node.output[0] for node in nodes[start:] if node.op_type in _FLOAT_OPERATORS]
    names = [name for name in names if name not in counts]  # traced towers add up axes and sizes, too
    largest = np.zeros(len(names))
    for values in run(with_outputs(model, names), feeds, names, batch=1):  # of each image all activations at once
        largest = np.maximum(largest, [np.abs(value).max() for value in values])
    for name, value in zip(names, largest, strict=True):
        if not value <= LARGEST:
            raise _overflow(model, f"the activation {name}", value)


def _overflow(model: onnx.ModelProto, what: str, value: float) -> QuantizationError:
    other = ", or float32" if fits(size_of(model), FLOAT32) else ""
    return QuantizationError(
        f"fp16: {what} reaches {value:.3g}, and half precision ends at {LARGEST:g}. Use --quantize int8{other}."
    )
