"""What a classifier says of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Score(NamedTuple):
    """A label and its probability, 0 to 1."""

    label: str
    probability: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result for one image.

    Attributes:
        labels: class names, in the order of the arrays.
        probabilities: float32 ``[classes]``, summing to 1.
        logits: float32 ``[classes]``.
        embedding: float32 ``[dim]``, of L2 norm 1.
        provider: the ONNX Runtime execution provider that ran.
    """

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]
    provider: str

    @property
    def label(self) -> str:
        """The most probable label."""
        return self.top(1)[0].label

    @property
    def probability(self) -> float:
        """The probability of `label`, 0 to 1."""
        return self.top(1)[0].probability

    def top(self, k: int) -> list[Score]:
        """The ``k`` most probable labels (all of them, if there are fewer), best first; equal ones in label order."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [Score(self.labels[i], float(self.probabilities[i])) for i in order]
