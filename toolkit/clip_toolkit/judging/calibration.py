"""How far probabilities are from what they promise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
