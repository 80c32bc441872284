"""What a model is scored by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.judging.answers import Answers
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

SCORES = {SINGLE_LABEL: "accuracy", MULTI_LABEL: "accuracy over all labels", REGRESSION: "R squared"}
"""What a model is scored by, by task."""


def share_right(answers: Answers) -> float:
    """Share of right decisions, 0 to 1; of a regression R squared, the mean of all values."""
    if answers.task == REGRESSION:
        return float(r_squared(answers.targets, answers.logits).mean())
    return float(answers.right.mean())


def share_text(score: float, task: str) -> str:
    """Format a share as a percentage, R squared as it is."""
    if math.isnan(score):
        return "not defined"
    return f"{score:.3f}" if task == REGRESSION else f"{score:.1%}"


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
