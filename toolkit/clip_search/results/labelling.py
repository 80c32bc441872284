"""Which images to label next: those that a model is least sure of, and no two alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.errors import SearchIndexError
from clip_toolkit.prediction import Prediction
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.decisions import DEFAULT_THRESHOLD
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL

_CANDIDATES = 10
"""Among how many times as many images as are asked for spread decides: more would let in sure ones."""


@dataclass(frozen=True)
class Unsure:
    """An image to label.

    Attributes:
        path: full path.
        label: the model's guess; None where it predicts none.
        margin: how sure it is, 0 to 1.
    """

    path: Path
    label: str | None
    margin: float


def check_chooses(spec: ModelSpec) -> None:
    """Refuse a model that no images can be chosen by.

    Raises:
        SearchIndexError: its task is regression, it reads a text with each image, or it has several heads.
    """
    reasons = {
        "predicts numbers, and is never unsure": spec.task == REGRESSION,
        "reads a text with each image, and an index holds images alone": spec.text is not None,
        "has several heads, and each is unsure of other images": bool(spec.tasks),
    }
    for reason, holds in reasons.items():
        if holds:
            raise SearchIndexError(f"no images to label can be chosen by this model: it {reason}.")


def margin(prediction: Prediction) -> float:
    """Return how sure a model is: how far the best label is ahead; of several, the least distance to a threshold."""
    exact = prediction.probabilities.astype(np.float64)
    if prediction.task == SINGLE_LABEL:
        return float(np.diff(np.sort(exact)[-2:]).sum() if len(exact) > 1 else 1.0)
    limits = [prediction.thresholds.get(label, DEFAULT_THRESHOLD) for label in prediction.labels]
    return float(np.abs(exact - limits).min())


def choose(margins: NDArray[Any], embeddings: NDArray[Any], count: int) -> list[int]:
    """Choose images that are unsure and spread out.

    Of the least sure ones, ten times as many as are asked for, the least sure comes first, and then always that which
    is least like all before it (farthest-first traversal: Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5).

    Args:
        margins: ``[n]``.
        embeddings: ``[n, dim]``, of L2 norm 1.
        count: how many; fewer if there are no more.
    """
    unsure = np.argsort(margins, kind="stable")[: _CANDIDATES * count]
    placed = embeddings[unsure].astype(np.float32)
    chosen: list[int] = []
    alike = np.full(len(unsure), -2.0)  # to the most alike of those chosen: less than any cosine
    for _ in range(min(count, len(unsure))):
        row = int(alike.argmin())
        chosen.append(int(unsure[row]))
        alike = np.maximum(alike, placed @ placed[row])
        alike[row] = np.inf
    return chosen
