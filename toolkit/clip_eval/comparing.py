"""Two models on the same images: how often they agree, and whether one is better by more than chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.errors import DatasetError
from clip_toolkit.judging.answers import Answers
from clip_toolkit.judging.figures import Interval, Samples, interval, share_interval
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION


class Flip(NamedTuple):
    """A label on which two models decide differently, on one image.

    Attributes:
        row: of the image.
        label: what the first model predicted; of multi-label the label on which they differ.
        other: what the second one predicted; of multi-label the same label.
        probabilities: that the first and the second model give ``label``.
        others: likewise ``other``.
        right: which of them is right: ``first``, ``second`` or ``neither``.
    """

    row: int
    label: str
    other: str
    probabilities: tuple[float, float]
    others: tuple[float, float]
    right: str


class Difference(NamedTuple):
    """How two models differ in a value of a regression.

    Attributes:
        label: name of the value.
        between: mean absolute difference of the two predictions.
        first, second: mean absolute errors.
        change: second minus first, with its interval of paired bootstrap samples.
    """

    label: str
    between: float
    first: float
    second: float
    change: Interval


@dataclass(frozen=True)
class Comparison:
    """How two models compare.

    Attributes:
        agreement: share of images with equal decisions; NaN for a regression.
        both, first, second, neither: images that both models, one alone or none gets wholly right.
        p: of McNemar's exact test; NaN for a regression.
        flips: all of them, the most confident first.
        differences: of a regression.
    """

    agreement: Interval
    both: int
    first: int
    second: int
    neither: int
    p: float
    flips: tuple[Flip, ...]
    differences: tuple[Difference, ...]


def check_comparable(first: ModelSpec, second: ModelSpec) -> None:
    """Refuse two models that answer different questions.

    Raises:
        DatasetError: their tasks or labels differ, or only one of them reads texts.
    """
    for name, one, two in (
        ("task", first.task, second.task),
        ("labels", sorted(first.labels), sorted(second.labels)),
        ("text", first.text is not None, second.text is not None),
    ):
        if one != two:
            raise DatasetError(f"the models cannot be compared: the {name} of the first: {one}, of the second: {two}.")


def compare(first: Answers, second: Answers, samples: Samples) -> Comparison:
    """Compare the answers of two models to the same images.

    Args:
        first: of one model.
        second: of the other, with the labels in the same order.
        samples: the images by their groups.
    """
    if first.task == REGRESSION:
        nothing = Interval(math.nan, math.nan, math.nan)
        found = tuple(_difference(first, second, index, samples) for index in range(len(first.labels)))
        return Comparison(nothing, 0, 0, 0, 0, math.nan, (), found)
    one, two = (answers.right.reshape(len(answers.right), -1).all(1) for answers in (first, second))
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    return Comparison(
        share_interval((first.predicted == second.predicted).all(1), samples),
        int((one & two).sum()),
        only_first,
        only_second,
        int((~one & ~two).sum()),
        mcnemar(only_first, only_second),
        tuple(_flips(first, second)),
        (),
    )


def mcnemar(first: int, second: int) -> float:
    """Compute the two-sided p-value of McNemar's exact test: the binomial one of the pairs that differ.

    Small: one model being right where the other is not would seldom be so one-sided by chance (McNemar 1947,
    doi:10.1007/BF02295996). 1 where no pair differs.

    Args:
        first: images that the first model alone gets right.
        second: that the second alone gets right.
    """
    count = first + second
    scale = math.lgamma(count + 1) - count * math.log(2)
    tail = (math.exp(scale - math.lgamma(k + 1) - math.lgamma(count - k + 1)) for k in range(min(first, second) + 1))
    return min(1.0, 2 * math.fsum(tail))


def _flips(first: Answers, second: Answers) -> list[Flip]:
    find = _label_flips if first.task == MULTI_LABEL else _class_flips
    return sorted(find(first, second), key=lambda flip: -max(*flip.probabilities, *flip.others))


def _class_flips(first: Answers, second: Answers) -> list[Flip]:
    one, two = first.predicted.argmax(1), second.predicted.argmax(1)
    return [
        Flip(
            row,
            first.labels[one[row]],
            first.labels[two[row]],
            _both(first, second, row, one[row]),
            _both(first, second, row, two[row]),
            "first" if first.right[row] else "second" if second.right[row] else "neither",
        )
        for row in np.flatnonzero(one != two).tolist()
    ]


def _label_flips(first: Answers, second: Answers) -> list[Flip]:
    return [
        Flip(
            row,
            first.labels[index],
            first.labels[index],
            _both(first, second, row, index),
            _both(first, second, row, index),
            "first" if first.right[row, index] else "second",
        )
        for row, index in np.argwhere(first.predicted != second.predicted).tolist()
    ]


def _both(first: Answers, second: Answers, row: int, index: int) -> tuple[float, float]:
    return float(first.probabilities[row, index]), float(second.probabilities[row, index])


def _difference(first: Answers, second: Answers, index: int, samples: Samples) -> Difference:
    true = first.targets[:, index]
    one, two = (np.abs(answers.logits[:, index] - true) for answers in (first, second))

    def change(rows: NDArray[np.int64]) -> float:
        return float((two[rows] - one[rows]).mean())

    between = float(np.abs(first.logits[:, index] - second.logits[:, index]).mean())
    return Difference(first.labels[index], between, float(one.mean()), float(two.mean()), interval(change, samples))
