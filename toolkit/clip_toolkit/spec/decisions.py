"""From probabilities to predicted labels: the one threshold rule, of training, quantization and every prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL

DEFAULT_THRESHOLD = 0.5
"""Minimum probability at which a label of a multi-label model is predicted, where the file names no other."""


def decide(
    probabilities: NDArray[np.floating[Any]], task: str, labels: Sequence[str], thresholds: Mapping[str, float]
) -> NDArray[np.bool_]:
    """Tell which labels are predicted.

    Args:
        probabilities: ``[..., labels]``; compared in float64, as clients in other languages do.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        labels: class names.
        thresholds: as in `clip_toolkit.spec.classifier.ModelSpec`.

    Returns:
        bool ``[..., labels]``: one label in a single-label model, any number in a multi-label model, none in a
        regression.
    """
    if task == REGRESSION:
        return np.zeros((*probabilities.shape[:-1], len(labels)), np.bool_)
    exact = probabilities.astype(np.float64)
    if task != SINGLE_LABEL:
        return np.asarray(exact >= [thresholds.get(label, DEFAULT_THRESHOLD) for label in labels])
    winner = exact.argmax(-1)
    for label, threshold in thresholds.items():  # of one of two labels
        chosen = list(labels).index(label)
        winner = np.where(exact[..., chosen] >= threshold, chosen, 1 - chosen)
    return np.asarray(winner[..., None] == np.arange(len(labels)))
