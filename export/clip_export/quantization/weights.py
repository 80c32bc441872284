"""What the integer spellings share: ranges and weights as integers, and operators of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from clip_export.quantization.targets import Target
from clip_toolkit.errors import QuantizationError

Range = tuple[float, float]
"""Least and largest value of a tensor."""

_DAMPING = 0.01  # of the mean of the Hessian's diagonal, as in the paper
_BLOCK = 128  # inputs whose compensation of the later ones is applied in one product


def quantized_weight(weight: NDArray[np.float32], target: Target) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Each weight at its nearest integer: int8 ``[inputs, outputs]`` and float32 scales ``[outputs]``."""
    scale = weight_scale(weight, target)
    return np.rint(weight / scale).astype(np.int8), scale


def weight_scale(weight: NDArray[np.float32], target: Target) -> NDArray[np.float32]:
    """Symmetric scale per output channel, float32 ``[outputs]``."""
    largest = np.maximum(np.abs(weight).max(0), np.finfo(np.float32).tiny * 2**8)
    return np.asarray(largest / target.largest_weight, np.float32)


def activation_parameters(range_: Range, target: Target) -> tuple[np.float32, np.integer]:
    """Scale and zero point of an activation tensor; zero itself is always representable."""
    low, high = min(range_[0], 0.0), max(range_[1], 0.0)
    limits = np.iinfo(target.activation)
    scale = max(high - low, float(np.finfo(np.float32).tiny) * 2**8) / (limits.max - limits.min)
    zero = np.clip(np.rint(limits.min - low / scale), limits.min, limits.max)
    return np.float32(scale), target.activation(zero)


def rounded_together(
    weight: NDArray[np.float32], rows: NDArray[np.float32], target: Target
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round as `quantized_weight` does, in the light of what the layer reads.

    The error of one weight is made up for by those that are still to be rounded. Inputs of a layer are correlated, so
    that an error along one can be compensated along others; what remains is small where the activations are, not
    everywhere (GPTQ: Frantar et al. 2023, https://arxiv.org/abs/2210.17323).

    Args:
        weight: float32 ``[inputs, outputs]``.
        rows: float32 ``[rows, inputs]``, a sample of the layer's inputs.
        target: processor.
    """
    scale = weight_scale(weight, target)
    left = weight.astype(np.float32).copy()
    integers = np.zeros(weight.shape, np.int8)
    factor = _inverse_factor(rows)
    for start in range(0, len(left), _BLOCK):
        end = min(start + _BLOCK, len(left))
        errors = np.empty((end - start, left.shape[1]), np.float32)
        for i in range(start, end):
            chosen = np.clip(np.rint(left[i] / scale), -target.largest_weight, target.largest_weight)
            integers[i] = chosen
            errors[i - start] = (left[i] - chosen * scale) / factor[i, i]
            left[i + 1 : end] -= np.outer(factor[i, i + 1 : end], errors[i - start])
        left[end:] -= factor[start:end, end:].T @ errors
    return integers, scale


def _inverse_factor(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Upper Cholesky factor of the inverse Hessian of the layer's squared error."""
    hessian = rows.astype(np.float64).T @ rows
    diagonal = np.diagonal(hessian).mean()
    hessian[np.diag_indices_from(hessian)] += _DAMPING * diagonal if diagonal > 0 else 1.0
    return np.linalg.cholesky(np.linalg.inv(hessian)).T.astype(np.float32)


def microsoft_node(kind: str, inputs: Sequence[str], output: str) -> NodeProto:
    """Make a node of ONNX Runtime's own operator set; empty names at the end of ``inputs`` are left out."""
    while inputs and not inputs[-1]:
        inputs = inputs[:-1]
    return helper.make_node(kind, inputs, [output], domain="com.microsoft")


def matmul_nbits(mode: str) -> Any:
    """Import ONNX Runtime's quantizer of weights in blocks.

    Raises:
        QuantizationError: the installed ONNX Runtime is too old.
    """
    try:
        return import_module("onnxruntime.quantization.matmul_nbits_quantizer")
    except ImportError as error:
        raise QuantizationError(
            f"{mode}: needs ONNX Runtime 1.22 or newer. Install: pip install -U onnxruntime"
        ) from error
