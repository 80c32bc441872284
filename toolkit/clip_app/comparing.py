"""Two models on the same labelled images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from clip_eval.running import run_models
from clip_toolkit.classifier import Classifier
from clip_toolkit.data.dataset import TEST, VALIDATION, Dataset
from clip_toolkit.judging.answers import Answers, Array
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION


class Comparison(NamedTuple):
    """How two models do.

    Attributes:
        before: figures of the first, by what they are.
        after: of the second.
        images: how many could be read.
        mended: names of images that the second alone gets right, or more labels of; none in a regression.
        broken: that the first alone gets right, likewise.
    """

    before: dict[str, float]
    after: dict[str, float]
    images: int
    mended: list[str]
    broken: list[str]


def held_out(dataset: Dataset) -> Dataset:
    """Return the images of the side to judge by, of a data set that names the side of each."""
    side = TEST if TEST in dataset.sides else VALIDATION  # the head was not chosen by a test side
    return dataset.subset([index for index, found in enumerate(dataset.sides) if found == side])


def compare(before: Classifier, after: Classifier, dataset: Dataset) -> Comparison:
    """Run two models of the same labels over images, and compare their decisions with the right ones.

    Raises:
        DatasetError: none of the images can be read.
    """
    run = run_models((before, after), dataset)
    first, second = map(_scores, run.answers)
    better = (second - first).sum(1) * (dataset.task != REGRESSION)
    mended, broken = (
        [run.dataset.files[row].name for row in np.flatnonzero(sign * better > 0).tolist()] for sign in (1, -1)
    )
    return Comparison(_figures(dataset, first), _figures(dataset, second), len(first), mended, broken)


def _figures(dataset: Dataset, scores: Array) -> dict[str, float]:
    right = ["right labels" if dataset.task == MULTI_LABEL else "right"]
    names = [f"mean absolute error, {name}" for name in dataset.labels] if dataset.task == REGRESSION else right
    return dict(zip(names, scores.mean(0).tolist(), strict=True))


def _scores(answers: Answers) -> Array:
    """Return the figures of each image: share of right labels ``[n, 1]``, or of a regression the errors."""
    if answers.task == REGRESSION:
        return np.asarray(np.abs(answers.logits - answers.targets))
    return np.asarray(answers.right.reshape(len(answers.targets), -1).mean(1, keepdims=True))
