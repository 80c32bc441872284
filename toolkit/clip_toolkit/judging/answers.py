"""What a model answers to examples, and how far its confidence can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.judging.calibration import reliability
from clip_toolkit.spec.tasks import SINGLE_LABEL

Array = NDArray[Any]


@dataclass(frozen=True)
class Answers:
    """What a model answers to examples.

    Attributes:
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        labels: class names, or names of values.
        targets: as in `clip_toolkit.data.dataset.Dataset`.
        logits: float32 ``[n, labels]``; the values of a regression.
        probabilities: float32 ``[n, labels]``, calibrated; ``[n, 0]`` for a regression.
        predicted: bool ``[n, labels]``: which labels are predicted; none in a regression.
    """

    task: str
    labels: tuple[str, ...]
    targets: Array
    logits: Array
    probabilities: Array
    predicted: NDArray[np.bool_]

    @property
    def true(self) -> NDArray[np.bool_]:
        """Bool ``[n, labels]``: which labels the examples have."""
        if self.task == SINGLE_LABEL:
            return np.asarray(np.arange(len(self.labels)) == self.targets[:, None])
        return np.asarray(self.targets > 0.5)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which decisions are right: bool ``[n]``, or ``[n, labels]`` for multi-label."""
        right = self.predicted == self.true
        return np.asarray(right.all(1) if self.task == SINGLE_LABEL else right)

    def named(self, which: NDArray[np.bool_]) -> list[str]:
        """Return the labels that ``which``, bool ``[labels]``, picks."""
        return [label for label, picked in zip(self.labels, which, strict=True) if picked]

    def confusion(self) -> Array:
        """Count true against predicted labels of a single-label task: int64 ``[labels, labels]``."""
        return self.true.T.astype(np.int64) @ self.predicted

    def reliability(self, of: Array | None = None) -> tuple[Array, float]:
        """Reliability of the probabilities, or ``of`` others, as `clip_toolkit.judging.calibration.reliability`."""
        confidence = (self.probabilities if of is None else of).astype(np.float64)
        if self.task == SINGLE_LABEL:
            return reliability(confidence.max(1), confidence.argmax(1) == self.targets)
        return reliability(confidence.ravel(), self.true.ravel())
