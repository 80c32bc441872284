"""A labelled data set, wherever it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL

TRAIN, VALIDATION, TEST = "train", "val", "test"

SIDES = {TRAIN: TRAIN, "training": TRAIN, VALIDATION: VALIDATION, "valid": VALIDATION, "validation": VALIDATION}
SIDES |= {TEST: TEST, "testing": TEST}
"""What people call the sides of a split, in lower case, and what they are called here."""


@dataclass(frozen=True)
class Dataset:
    """Image files and what is to be learnt of them.

    Attributes:
        source: the folder or manifest that was read.
        root: the folder that relative paths start from.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        labels: class names; of a regression the names of its values.
        files: the image files.
        targets: int64 ``[n]``, index into ``labels``; float32 ``[n, labels]`` of zeros and ones for multi-label, of
            values for a regression.
        sides: of each file, `TRAIN`, `VALIDATION`, `TEST`, or empty where the data set does not say.
        groups: of each file, the name of its group (a patient, say); empty where it has none.
        texts: of each file, the text that goes with it; None where the data set has no texts.
        text_column: heading of their column.
        columns: other columns of a manifest that were asked for, by heading: of each file, its cell.
        left_out: what a folder has beside its images, a line for each kind.
    """

    source: Path
    root: Path
    task: str
    labels: tuple[str, ...]
    files: tuple[Path, ...]
    targets: NDArray[Any]
    sides: tuple[str, ...]
    groups: tuple[str, ...]
    texts: tuple[str, ...] | None = None
    text_column: str | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def subset(self, indices: Sequence[int]) -> Dataset:
        """Return the data set of some of the files."""
        return replace(
            self,
            files=tuple(self.files[i] for i in indices),
            targets=self.targets[list(indices)],
            sides=tuple(self.sides[i] for i in indices),
            groups=tuple(self.groups[i] for i in indices),
            texts=None if self.texts is None else tuple(self.texts[i] for i in indices),
            columns={name: tuple(cells[i] for i in indices) for name, cells in self.columns.items()},
        )

    def relative(self, index: int) -> str:
        """Return a file's path below the root, with forward slashes."""
        path = self.files[index]
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()


def memberships(dataset: Dataset) -> NDArray[np.float64]:
    """Which labels each file counts for: ``[n, labels]`` of zeros and ones; of a regression ``[n, 1]`` of ones."""
    if dataset.task == SINGLE_LABEL:
        return np.asarray(np.eye(len(dataset.labels))[np.asarray(dataset.targets)])
    if dataset.task == REGRESSION:
        return np.ones((len(dataset.files), 1))
    return np.asarray(dataset.targets, np.float64)
