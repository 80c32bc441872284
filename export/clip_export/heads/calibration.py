"""Probabilities that mean what they say: temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL

BOUNDS = (0.1, 10.0)
"""Temperatures beyond are not believed."""

_BINS = 15  # of the expected calibration error, as in the paper


def fit_temperature(logits: Tensor, targets: Tensor, task: str) -> float:
    """Fit the temperature, within `BOUNDS`, that makes the targets most likely.

    Without a mistake any sharpening makes them likelier, which says nothing of confidence: the temperature stays at 1.

    Args:
        logits: float32 ``[n, labels]``, of examples that the head did not learn from.
        targets: as in `clip_export.data.dataset.Dataset`.
        task: one of `clip_toolkit.spec.tasks.TASKS`; a regression has the temperature 1.
    """
    if task == REGRESSION or not has_mistakes(logits, targets, task):
        return 1.0
    exact = logits.double()

    def loss(inverse: float) -> float:  # convex
        if task == SINGLE_LABEL:
            return functional.cross_entropy(exact * inverse, targets).item()
        return functional.binary_cross_entropy_with_logits(exact * inverse, targets.double()).item()

    bounds = (1 / BOUNDS[1], 1 / BOUNDS[0])
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9})
    return float(1 / min((found.x, *bounds), key=loss))


def has_mistakes(logits: Tensor, targets: Tensor, task: str) -> bool:
    """Tell whether the most probable labels, of several those above 50 %, are not all right."""
    if task == SINGLE_LABEL:
        return bool((logits.argmax(1) != targets).any())
    return bool(((logits > 0) != (targets > 0.5)).any())


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
