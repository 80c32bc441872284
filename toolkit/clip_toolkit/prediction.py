"""What a classifier says of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.spec.decisions import are_novel, decide, label_sets
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL


class Score(NamedTuple):
    """A label and its probability, 0 to 1."""

    label: str
    probability: float


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The result for one image, and the text that goes with it.

    Attributes:
        labels: class names, in the order of the arrays; of a regression the names of its values.
        probabilities: float32 ``[classes]``; they sum to 1 in a single-label model, and are none in a regression.
        logits: float32 ``[classes]``; the values of a regression.
        embedding: float32 ``[dim]``, of L2 norm 1.
        provider: the ONNX Runtime execution provider that ran.
        task: ``single-label``, ``multi-label`` or ``regression``.
        thresholds: probability from which a label is said, as in `clip_toolkit.spec.classifier.ModelSpec`.
        text: the text that was read together with the image, or None.
        text_truncated: whether it has more tokens than the model takes, so that its end was not read.
        tasks: of a file with several heads, what each further one says of the image, by name.
        novelty: distance from the training images, or None of a file that does not tell it.
        novelty_threshold: distance beyond which an image is unlike them, likewise.
        set_quantile: as of `clip_toolkit.spec.trust.CoverageSpec`, or None of a file without.
        relevance: what speaks for the label with the largest logit, not negative, float32 ``[rows, columns]`` over the
            square that the encoder sees; None of a file without maps.
    """

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]
    provider: str
    task: str = SINGLE_LABEL
    thresholds: Mapping[str, float] = field(default_factory=dict)
    text: str | None = None
    text_truncated: bool = False
    tasks: Mapping[str, Prediction] = field(default_factory=dict)
    novelty: float | None = None
    novelty_threshold: float | None = None
    set_quantile: float | None = None
    relevance: NDArray[np.float32] | None = None

    def __repr__(self) -> str:
        """Show the answer, without the arrays."""
        names = {SINGLE_LABEL: ("label", "probability"), REGRESSION: ("values",)}.get(self.task, ("decisions",))
        answer = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        others = "".join(f", {name}={each!r}" for name, each in self.tasks.items())
        return f"Prediction({answer}, provider={self.provider!r}{others})"

    @property
    def decisions(self) -> tuple[str, ...]:
        """The labels that are said: one, or in a multi-label model any number, or in a regression none."""
        found = decide(self.probabilities, self.task, self.labels, self.thresholds)
        return tuple(label for label, predicted in zip(self.labels, found, strict=True) if predicted)

    @property
    def label(self) -> str | None:
        """The label that is said; of several the most probable one; None where none is."""
        said = self.decisions
        return next((score.label for score in self.top(len(self.labels)) if score.label in said), None)

    @property
    def probability(self) -> float | None:
        """The probability of `label`, 0 to 1; None where there is none."""
        label = self.label
        return None if label is None else float(self.probabilities[self.labels.index(label)])

    @property
    def is_novel(self) -> bool | None:
        """Whether the image is unlike the training images; None where the file does not tell it."""
        if self.novelty is None or self.novelty_threshold is None:
            return None
        return bool(are_novel(np.array(self.novelty), self.novelty_threshold))

    @property
    def set(self) -> tuple[str, ...] | None:
        """The labels one of which is promised to be right, the most probable first; None where the file promises none.

        They follow from the probabilities alone: a label that a threshold decided for may be none of them.
        """
        if self.set_quantile is None:
            return None
        found = label_sets(self.probabilities, self.set_quantile)
        return tuple(label for label, _ in self.top(int(found.sum())))

    @property
    def values(self) -> dict[str, float]:
        """The values of a regression, by name; empty for other tasks."""
        if self.task != REGRESSION:
            return {}
        return {name: float(value) for name, value in zip(self.labels, self.logits, strict=True)}

    def top(self, k: int) -> list[Score]:
        """Return the ``k`` most probable labels (all, if there are fewer), best first; ties in label order."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [Score(self.labels[i], float(self.probabilities[i])) for i in order]
