"""Images whose label is probably wrong: confident learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from clip_toolkit.judging.answers import Array


class Suspect(NamedTuple):
    """An image that probably has another label.

    Attributes:
        row: of the image.
        label: index of the label that it has.
        other: index of the one that it probably has.
        probabilities: of either, by a model that did not learn from the image.
    """

    row: int
    label: int
    other: int
    probabilities: tuple[float, float]


def find_mislabelled(probabilities: Array, targets: Array) -> list[Suspect]:
    """Return the images whose label is probably wrong, the surest first.

    A label is believed of an image if its probability is at least the mean one of all images that have it, so that
    labels that a model is less sure of are not suspected more often. Suspect is an image of which the most probable
    label that is believed is another one than its own.

    Args:
        probabilities: ``[n, labels]``, of a single-label model that did not learn from the image of the row.
        targets: int64 ``[n]``, index of the label that it has.
    """
    rows, counts = np.arange(len(targets)), np.bincount(targets, minlength=probabilities.shape[1])
    own = probabilities[rows, targets]
    sums = np.bincount(targets, own, minlength=probabilities.shape[1])
    usual = np.where(counts, sums / np.maximum(counts, 1), np.inf)  # nobody has the label: it is believed of none
    believed = np.where(probabilities >= usual, probabilities, -1)
    other = believed.argmax(1)
    margin = own - probabilities[rows, other]
    suspect = np.flatnonzero((believed.max(1) >= 0) & (other != targets))
    return [
        Suspect(row, int(targets[row]), int(other[row]), (float(own[row]), float(probabilities[row, other[row]])))
        for row in suspect[np.argsort(margin[suspect], kind="stable")].tolist()
    ]
