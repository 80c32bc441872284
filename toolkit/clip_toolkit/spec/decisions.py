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


def are_novel(distances: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.bool_]:
    """Tell which distances are of images unlike the training images; what is no number is like nothing."""
    return np.asarray(~(distances <= threshold))


def mass_before(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Sum up the probabilities of all labels that are more probable, for each label; ties in label order.

    Args:
        probabilities: ``[..., labels]``, of a single-label model; summed in float64, the most probable one first.

    Returns:
        float64 ``[..., labels]``: 0 for the most probable label.
    """
    exact = probabilities.astype(np.float64)
    order = np.argsort(-exact, axis=-1, kind="stable")
    sums = np.cumsum(np.take_along_axis(exact, order, -1), -1)
    before = np.concatenate([np.zeros_like(sums[..., :1]), sums[..., :-1]], -1)
    return np.take_along_axis(before, np.argsort(order, axis=-1), -1)


def label_sets(probabilities: NDArray[np.floating[Any]], quantile: float) -> NDArray[np.bool_]:
    """Tell which labels are in the set that is promised to hold the right one: bool ``[..., labels]``.

    A label is in if all labels that are more probable sum up to ``quantile`` at most, so that no set is empty.

    Args:
        probabilities: as in `mass_before`.
        quantile: as in `clip_toolkit.spec.trust.CoverageSpec`.
    """
    return np.asarray(mass_before(probabilities) <= quantile)
