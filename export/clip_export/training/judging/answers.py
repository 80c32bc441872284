"""What a head answers to examples, and how far its confidence can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clip_export.heads.calibration import reliability
from clip_export.heads.outputs import probabilities, r_squared
from clip_export.training.epochs import Examples
from clip_toolkit.spec.decisions import decide
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL

Array = NDArray[Any]


@dataclass(frozen=True)
class Answers:
    """What a head answers to examples.

    Attributes:
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        labels: class names, or names of values.
        targets: as in `clip_export.data.dataset.Dataset`.
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
        """Reliability of the probabilities, or ``of`` others, as `clip_export.heads.calibration.reliability`."""
        confidence = (self.probabilities if of is None else of).astype(np.float64)
        if self.task == SINGLE_LABEL:
            return reliability(confidence.max(1), confidence.argmax(1) == self.targets)
        return reliability(confidence.ravel(), self.true.ravel())


def share_right(answers: Answers) -> float:
    """Share of right decisions, 0 to 1; of a regression R squared, the mean of all values."""
    if answers.task == REGRESSION:
        return float(r_squared(answers.targets, answers.logits).mean())
    return float(answers.right.mean())


def answer(
    head: nn.Module,
    examples: Examples,
    labels: Sequence[str],
    *,
    task: str = SINGLE_LABEL,
    temperature: float = 1.0,
    thresholds: Mapping[str, float] | None = None,
) -> Answers:
    """Run a head on examples.

    Args:
        head: from features to logits.
        examples: what it did not learn from.
        labels: class names, or names of values.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        temperature: as in `clip_toolkit.spec.classifier.ModelSpec`.
        thresholds: likewise.
    """
    head.eval()
    with torch.inference_mode():
        logits = head(examples.features)
        found = probabilities(logits, task, temperature).numpy()
    predicted = decide(found, task, labels, thresholds or {})
    return Answers(task, tuple(labels), examples.targets.numpy(), logits.numpy(), found, predicted)
