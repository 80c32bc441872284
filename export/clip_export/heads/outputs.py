"""What a head's raw outputs mean, by task, and features of unit length."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

SCORES = {SINGLE_LABEL: "accuracy", MULTI_LABEL: "accuracy over all labels", REGRESSION: "R squared"}
"""What a head is scored by, by task."""


def probabilities(logits: Tensor, task: str, temperature: float = 1.0) -> Tensor:
    """Probabilities of logits ``[n, outputs]``, divided by ``temperature`` first.

    Returns:
        The softmax of each row, the sigmoid of each element, or for a regression, which has none, ``[n, 0]``.
    """
    if task == REGRESSION:
        return logits[:, :0]
    scaled = logits if temperature == 1 else logits / temperature
    return torch.sigmoid(scaled) if task == MULTI_LABEL else torch.softmax(scaled, dim=-1)


def r_squared(true: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    """Compute the coefficient of determination of each value.

    Args:
        true: ``[n, values]`` or ``[n]``.
        predicted: of the same shape.

    Returns:
        ``[values]`` or ``[]``; NaN of fewer than two examples; of values that never change 1 where the prediction is
        exact, else 0, as in scikit-learn.
    """
    if len(true) < 2:
        return np.full(true.shape[1:], np.nan)
    exact = true.astype(np.float64)
    left, spread = np.square(predicted - exact).sum(0), np.square(exact - exact.mean(0)).sum(0)
    varies = spread > 0
    return np.asarray(np.where(varies, 1 - left / np.where(varies, spread, 1.0), left == 0), np.float64)


_LEAST_NORM = 1e-12  # PyTorch's: a row of zeros stays one


def unit_length(x: Tensor) -> Tensor:
    """Rows of L2 norm 1, as ``torch.nn.functional.normalize``, which would leave the norm's expansion in the graph."""
    norm: Tensor = x.norm(dim=-1, keepdim=True)
    return x / norm.clamp_min(_LEAST_NORM)
