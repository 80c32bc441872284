"""Probabilities that mean what they say: temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL

BOUNDS = (0.1, 10.0)
"""Temperatures beyond are not believed: a validation set without mistakes would ask for 0."""

_BINS = 15  # of the expected calibration error, as in the paper


def fit_temperature(logits: Tensor, targets: Tensor, task: str) -> float:
    """The temperature, within `BOUNDS`, that makes the targets most likely.

    Args:
        logits: float32 ``[n, labels]``, of examples that the head did not learn from.
        targets: as in `clip_export.data.dataset.Dataset`.
        task: one of `clip_toolkit.spec.tasks.TASKS`; a regression has the temperature 1.

    The likelihood is concave in the inverse temperature, so that bisecting its slope finds the maximum.
    """
    if task == REGRESSION or not len(logits):
        return 1.0
    low, high = 1 / BOUNDS[1], 1 / BOUNDS[0]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _slope(logits.double(), targets, task, middle) < 0 else (low, middle)
    return float(min(max(2 / (low + high), BOUNDS[0]), BOUNDS[1]))


def _slope(logits: Tensor, targets: Tensor, task: str, inverse: float) -> float:
    """Slope of the negative log likelihood over the inverse temperature."""
    scale = torch.tensor(inverse, dtype=torch.float64, requires_grad=True)
    if task == SINGLE_LABEL:
        loss = functional.cross_entropy(logits * scale, targets)
    else:
        loss = functional.binary_cross_entropy_with_logits(logits * scale, targets.double())
    loss.backward()
    assert scale.grad is not None
    return scale.grad.item()


def reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """How far confidence is from the share of right answers.

    Args:
        confidence: ``[n]``, probabilities 0 to 1 of what was said.
        right: ``[n]``, whether it was so.

    Returns:
        For each bin that is not empty its mean confidence, share of right answers and number, ``[bins, 3]``; and the
        expected calibration error: the mean distance of the first two, weighted by the third.
    """
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    rows = [
        (confidence[bins == index].mean(), right[bins == index].mean(), (bins == index).sum())
        for index in np.unique(bins)
    ]
    table = np.array(rows, np.float64).reshape(-1, 3)
    error = float((np.abs(table[:, 0] - table[:, 1]) * table[:, 2]).sum() / max(1, len(confidence)))
    return table, error
