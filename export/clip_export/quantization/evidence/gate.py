"""The gate: does the quantized file decide as the float one does, on images of the user's own?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_toolkit import Classifier, Prediction
from clip_toolkit.judging.scores import r_squared
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.receipts import Flip
from clip_toolkit.spec.tasks import REGRESSION

_TIMED_RUNS = 9


@dataclass(frozen=True)
class Decisions:
    """What changed between two files.

    Attributes:
        images: number of images.
        agreement: share of images with the same decision; of a regression the share of the old values'
            variance that the new ones keep, of the value that fares worst, at least 0.
        flips: the others, by file name; none in a regression.
        mean_shift: mean over the images of the largest absolute change of a probability, or of a regression's value.
        largest_shift: the largest of those changes.
        accuracy_before: of the first file where classes are known, else None.
        accuracy_after: of the second.
    """

    images: int
    agreement: float
    flips: tuple[tuple[str, Flip], ...]
    mean_shift: float
    largest_shift: float
    accuracy_before: float | None
    accuracy_after: float | None

    def told(self) -> dict[str, Any]:
        """Return what a receipt says of it, by the receipt's fields; of the flips without the images' names."""
        return {
            "agreement": self.agreement,
            "flips": tuple(flip for _, flip in self.flips),
            "mean_shift": self.mean_shift,
            "largest_shift": self.largest_shift,
            "accuracy_before": self.accuracy_before,
            "accuracy_after": self.accuracy_after,
        }


def predictions(
    classifier: Classifier,
    files: Sequence[Path | bytes | NDArray[np.uint8]],
    texts: Sequence[str] | None = None,
) -> list[Prediction]:
    """Predict images and their texts through the shipped runtime; an unreadable image raises."""
    return [item for item in classifier.predict_many(files, texts=texts) if isinstance(item, Prediction)]


def compare(
    names: Sequence[str],
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    targets: Sequence[int | None],
) -> Decisions:
    """Compare two files' answers to the same images.

    Args:
        names: of the images, for people.
        before: of the float file.
        after: of the quantized one.
        targets: index of the class of each image, None where it is not known.
    """
    old, new = _numbers(before), _numbers(after)
    shifts = np.abs(new - old).max(1)
    pairs = list(zip(names, before, after, strict=True))
    flips = tuple((name, _flip(first, second)) for name, first, second in pairs if first.decisions != second.decisions)
    is_regression = before[0].task == REGRESSION
    return Decisions(
        images=len(names),
        agreement=max(float(r_squared(old, new).min()), 0.0) if is_regression else 1 - len(flips) / len(names),
        flips=flips,
        mean_shift=float(shifts.mean()),
        largest_shift=float(shifts.max()),
        accuracy_before=_accuracy(before, targets),
        accuracy_after=_accuracy(after, targets),
    )


def compare_heads(
    spec: ModelSpec,
    names: Sequence[str],
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    targets: Sequence[int | None],
) -> dict[str, Decisions]:
    """Compare each head's answers, by its name; classes of the images are known for the main head alone."""
    found = {spec.name: compare(names, before, after, targets)}
    for name in (task.name for task in spec.tasks):
        old, new = ([item.tasks[name] for item in answers] for answers in (before, after))
        found[name] = compare(names, old, new, [None] * len(old))
    return found


def speed_ratio(before: Callable[[], object], after: Callable[[], object]) -> float:
    """Time two ways in turns, and tell how many times faster the second is: the median of the ratios."""
    seconds = np.array([[_seconds(run) for run in (before, after)] for _ in range(_TIMED_RUNS + 1)])
    return float(np.median(seconds[1:, 0] / seconds[1:, 1]))  # the first ones warm up


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _numbers(answers: Sequence[Prediction]) -> NDArray[np.float32]:
    """Probabilities ``[images, classes]``, or the values of a regression."""
    return np.stack([answer.logits if answer.task == REGRESSION else answer.probabilities for answer in answers])


def _accuracy(answers: Sequence[Prediction], targets: Sequence[int | None]) -> float | None:
    right = [
        answer.decisions == (answer.labels[target],)
        for answer, target in zip(answers, targets, strict=True)
        if target is not None
    ]
    return float(np.mean(right)) if right else None


def _flip(before: Prediction, after: Prediction) -> Flip:
    (label, *_) = sorted(set(before.decisions) ^ set(after.decisions), key=before.labels.index)
    return Flip(*_said(before, label), *_said(after, label))


def _said(answer: Prediction, changed: str) -> tuple[str, float]:
    """Name a decision and its probability: with several labels, or none, that of one that changed."""
    if len(answer.decisions) == 1:
        (changed,) = answer.decisions
    return ", ".join(answer.decisions) or "none", float(answer.probabilities[answer.labels.index(changed)])
