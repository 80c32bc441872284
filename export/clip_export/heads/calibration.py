"""Probabilities that mean what they say: temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""

from __future__ import annotations

from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL

BOUNDS = (0.1, 10.0)
"""Temperatures beyond are not believed."""


def fit_temperature(logits: Tensor, targets: Tensor, task: str) -> float:
    """Fit the temperature, within `BOUNDS`, that makes the targets most likely.

    Without a mistake any sharpening makes them likelier, which says nothing of confidence: the temperature stays at 1.

    Args:
        logits: float32 ``[n, labels]``, of examples that the head did not learn from.
        targets: as in `clip_toolkit.data.dataset.Dataset`.
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
