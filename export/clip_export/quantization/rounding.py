"""Rounding weights together: the error of one is made up for by the ones that are still to be rounded.

GPTQ (Frantar et al. 2023, https://arxiv.org/abs/2210.17323): inputs of a layer are correlated, so that an error along
one of them can be compensated along others. What remains is small where the activations are, not everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clip_export.quantization.targets import Target
from clip_export.quantization.weights import weight_scale

_DAMPING = 0.01  # of the mean of the Hessian's diagonal, as in the paper
_BLOCK = 128  # inputs whose compensation of the later ones is applied in one product


def rounded_together(
    weight: NDArray[np.float32], rows: NDArray[np.float32], target: Target
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Like `clip_export.quantization.weights.quantized_weight`, in the light of what the layer reads.

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
