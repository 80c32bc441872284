"""What the integer spellings share: rounded weights, and operators of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from clip_export.quantization.targets import Target


def quantized_weight(weight: NDArray[np.float32], target: Target) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Each weight at its nearest integer: int8 ``[inputs, outputs]`` and float32 scales ``[outputs]``."""
    scale = weight_scale(weight, target)
    return np.rint(weight / scale).astype(np.int8), scale


def weight_scale(weight: NDArray[np.float32], target: Target) -> NDArray[np.float32]:
    """Symmetric scale per output channel, float32 ``[outputs]``."""
    largest = np.maximum(np.abs(weight).max(0), np.finfo(np.float32).tiny * 2**8)
    return (largest / target.largest_weight).astype(np.float32)


def microsoft_node(kind: str, inputs: Sequence[str], output: str) -> NodeProto:
    """A node of ONNX Runtime's own operator set; empty names at the end of ``inputs`` are left out."""
    while inputs and not inputs[-1]:
        inputs = inputs[:-1]
    return helper.make_node(kind, inputs, [output], domain="com.microsoft")
