"""How far probabilities are from what they promise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.spec.tasks import SINGLE_LABEL

Array = NDArray[Any]

_BINS = 15  # of the expected calibration error, as in Guo et al. 2017, https://arxiv.org/abs/1706.04599


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


def brier_score(probabilities: Array, true: NDArray[np.bool_], task: str) -> float:
    """Compute the Brier score: 0 is best (Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2).

    Args:
        probabilities: ``[n, labels]``.
        true: bool ``[n, labels]``, which labels the examples have.
        task: single-label or multi-label.

    Returns:
        The mean squared distance of a probability from 0 or 1: of one of two labels or of each of several that may hold
        together; of more labels that exclude one another, their sum, which may reach 2.
    """
    squares = np.square(probabilities.astype(np.float64) - true)
    exclusive = task == SINGLE_LABEL and true.shape[1] > 2
    return float(squares.sum(1).mean() if exclusive else squares.mean())


def log_loss(logits: Array, true: NDArray[np.bool_], task: str) -> float:
    """Compute the mean cross entropy, in nats, of logits ``[n, labels]`` that the temperature has divided.

    Args:
        logits: from which no rounding to a probability of 0 has taken anything.
        true: bool ``[n, labels]``, which labels the examples have.
        task: single-label (of the softmax) or multi-label (of the sigmoids, the mean over labels).
    """
    exact = logits.astype(np.float64)
    if task == SINGLE_LABEL:
        return float((np.logaddexp.reduce(exact, axis=1) - exact[true]).mean())
    return float((np.logaddexp(0, exact) - np.where(true, exact, 0)).mean())
