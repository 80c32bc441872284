"""Curves over all thresholds, and the areas under them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.judging.answers import Array


class Curve(NamedTuple):
    """What is reached at each threshold: at or above every score that there is, the highest first.

    Attributes:
        found: positives at or above it, int64 ``[thresholds]``.
        false: negatives likewise.
    """

    found: NDArray[np.int64]
    false: NDArray[np.int64]

    @classmethod
    def of(cls, true: Array, scores: Array) -> Curve:
        """Count them.

        Args:
            true: bool ``[n]``, which examples have the label.
            scores: ``[n]``.
        """
        order = np.argsort(-scores, kind="stable")
        last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each run of equal scores
        found = np.cumsum(true[order])[last]
        return cls(found, last + 1 - found)

    @property
    def sensitivity(self) -> NDArray[np.float64]:
        """Share of the positives that is found, 0 to 1: recall."""
        return np.asarray(self.found / self.found[-1])

    @property
    def false_share(self) -> NDArray[np.float64]:
        """Share of the negatives that is taken for positive: 1 - specificity."""
        return np.asarray(self.false / self.false[-1])

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of what is at or above the threshold that is positive."""
        return np.asarray(self.found / (self.found + self.false))


def area_under_roc(true: Array, scores: Array) -> float:
    """Compute the chance that a positive scores above a negative, ties as half: the Mann-Whitney statistic."""
    curve = Curve.of(true, scores)
    heights = np.concatenate([[0.0], curve.sensitivity])
    return float(np.sum(np.diff(curve.false_share, prepend=0.0) * (heights[1:] + heights[:-1]) / 2))


def average_precision(true: Array, scores: Array) -> float:
    """Compute the area under the steps of precision over recall, without interpolation, as scikit-learn does."""
    curve = Curve.of(true, scores)
    return float(np.sum(np.diff(curve.sensitivity, prepend=0.0) * curve.precision))
