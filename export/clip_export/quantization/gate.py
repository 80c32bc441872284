"""The gate: does the quantized file decide as the float one does, on images of the user's own?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clip_toolkit import Classifier
from clip_toolkit.receipts import Flip


@dataclass(frozen=True)
class Decisions:
    """What changed between two files.

    Attributes:
        images: number of images.
        agreement: share of images with the same most probable class.
        flips: the others, by file name.
        mean_shift: mean over the images of the largest absolute change of a probability.
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


def probabilities(classifier: Classifier, files: Sequence[Path | bytes]) -> NDArray[np.float32]:
    """What a file answers through the shipped runtime: float32 ``[files, classes]``."""
    return np.stack([prediction.probabilities for prediction in classifier.predict_many(files)])


def compare(
    labels: Sequence[str],
    names: Sequence[str],
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    targets: Sequence[int | None],
) -> Decisions:
    """Compare two files' probabilities ``[images, classes]``.

    Args:
        labels: class names.
        names: of the images, for people.
        before: of the float file.
        after: of the quantized one.
        targets: index of the class of each image, None where it is not known.
    """
    first, second = before.argmax(1), after.argmax(1)
    shifts = np.abs(after - before).max(1)
    flips = tuple((names[i], _flip(labels, before[i], after[i])) for i in np.flatnonzero(first != second))
    known = np.array([target is not None for target in targets])
    classes = np.array([-1 if target is None else target for target in targets])
    return Decisions(
        images=len(names),
        agreement=float((first == second).mean()),
        flips=flips,
        mean_shift=float(shifts.mean()),
        largest_shift=float(shifts.max()),
        accuracy_before=float((first == classes)[known].mean()) if known.any() else None,
        accuracy_after=float((second == classes)[known].mean()) if known.any() else None,
    )


def _flip(labels: Sequence[str], before: NDArray[np.float32], after: NDArray[np.float32]) -> Flip:
    old, new = int(before.argmax()), int(after.argmax())
    return Flip(labels[old], float(before[old]), labels[new], float(after[new]))
