"""What a notebook's model answered, checked for contradictions before anything is compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.errors import ExpectError

Rows = NDArray[np.float64]
Real = TypeVar("Real", np.float32, np.float64)

_SUM_TOLERANCE = 0.02  # of probabilities that somebody may have rounded to two digits
_CONTRADICTION = 0.02  # of probabilities, likewise


@dataclass(frozen=True, eq=False)
class Answers:
    """A notebook's answers, one row for each image or feature.

    Attributes:
        images: paths or encoded images; empty if there are features.
        features: float32 ``[n, dim]``, what the head read, or None.
        logits: float64 ``[n, outputs]``, or None.
        probabilities: float64 ``[n, labels]``, or None.
        decisions: label of each row, where nothing else is known, or None.
        labels: names of the columns, or None.
    """

    images: tuple[str | bytes, ...] = ()
    features: NDArray[np.float32] | None = None
    logits: Rows | None = None
    probabilities: Rows | None = None
    decisions: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.images) if self.features is None else len(self.features)

    @property
    def compared(self) -> str:
        """The strongest kind of answer there is: ``logits``, ``probabilities`` or ``labels``."""
        if self.logits is not None:
            return "logits"
        return "labels" if self.probabilities is None else "probabilities"

    @property
    def tells_task(self) -> bool:
        """Whether more than logits, which suit a softmax, a sigmoid of each label and plain values alike."""
        return self.logits is None or self.probabilities is not None

    def taken(self, rows: Sequence[int]) -> Answers:
        """Return some of the rows."""

        def part(values: NDArray[Real] | None) -> NDArray[Real] | None:
            return None if values is None else values[list(rows)]

        return replace(
            self,
            images=tuple(self.images[i] for i in rows) if self.images else (),
            features=part(self.features),
            logits=part(self.logits),
            probabilities=part(self.probabilities),
            decisions=tuple(self.decisions[i] for i in rows) if self.decisions is not None else None,
        )

    def fitted_to(self, labels: Sequence[str]) -> Answers:
        """Return the answers with their columns in the order of ``labels``.

        A single column stands for two labels: the logit or the probability of the second one.

        Raises:
            ExpectError: other label names, or another number of columns.
        """
        answers = self._two_columns(len(labels))
        if self.decisions is not None:
            _check_names(set(self.decisions) <= set(labels), sorted(set(self.decisions)), labels)
        values = answers.logits if answers.logits is not None else answers.probabilities
        if values is None:
            return answers
        if values.shape[1] != len(labels):
            raise ExpectError(
                f"expect: the notebook has {values.shape[1]} columns of answers, but there are {len(labels)} labels."
            )
        if self.labels is None:
            return answers
        _check_names(set(self.labels) == set(labels), self.labels, labels)
        order = [self.labels.index(label) for label in labels]
        return replace(
            answers,
            labels=tuple(labels),
            logits=None if answers.logits is None else answers.logits[:, order],
            probabilities=None if answers.probabilities is None else answers.probabilities[:, order],
        )

    def _two_columns(self, labels: int) -> Answers:
        if labels != 2:
            return self
        logits, chances = self.logits, self.probabilities
        if logits is not None and logits.shape[1] == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        if chances is not None and chances.shape[1] == 1:
            chances = np.concatenate([1 - chances, chances], axis=1)
        return replace(self, logits=logits, probabilities=chances)


def check(answers: Answers) -> None:
    """Refuse answers that prove nothing.

    Raises:
        ExpectError: no rows, numbers of rows that differ, NaN or infinity, probabilities outside 0 to 1, or logits and
            probabilities that contradict each other.
    """
    if not len(answers):
        raise ExpectError("holds no answers.")
    columns = {"features": answers.features, "logits": answers.logits, "probabilities": answers.probabilities}
    for name, values in columns.items():
        if values is not None:
            _check_column(name, values, len(answers))
    if answers.compared == "labels" and (answers.decisions is None or len(answers.decisions) != len(answers)):
        raise ExpectError("has neither logits, nor probabilities, nor a label for each image.")
    _check_probabilities(answers)


def _check_column(name: str, values: NDArray[np.floating], rows: int) -> None:
    if values.ndim != 2 or not values.shape[1] or len(values) != rows:
        raise ExpectError(f"{name}: expected {rows} rows, [{rows}, columns], got {list(values.shape)}.")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise ExpectError(f"{name}: row {bad[0]} holds NaN or infinity ({len(bad)} rows do). Run the notebook again.")


def _check_probabilities(answers: Answers) -> None:
    chances, logits = answers.probabilities, answers.logits
    if chances is None:
        return
    bad = np.flatnonzero(((chances < 0) | (chances > 1)).any(axis=1))
    if len(bad):
        raise ExpectError(
            f"probabilities: row {bad[0]} goes beyond 0 to 1 ({len(bad)} rows do). If they are logits, name them so."
        )
    if logits is not None and logits.shape == chances.shape and not _agree(logits, chances):
        raise ExpectError(
            "logits and probabilities contradict each other: these are neither the softmax nor the sigmoid of those, "
            "at any temperature. Save both from one run of the notebook."
        )


def _agree(logits: Rows, chances: Rows) -> bool:
    found = (softmax(logits), sigmoid(logits), *(softmax(logits / t) for t in np.geomspace(0.05, 20, 400)))
    return min(float(np.abs(each - chances).max()) for each in found) <= _CONTRADICTION


def sums_to_one(chances: Rows) -> bool:
    """Whether each row is a distribution over the labels, as a softmax makes them."""
    return bool((np.abs(chances.sum(axis=1) - 1) <= _SUM_TOLERANCE).all())


def softmax(logits: Rows) -> Rows:
    """Probabilities of labels that exclude each other, ``[n, labels]``."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def sigmoid(logits: Rows) -> Rows:
    """Probabilities of labels one by one, ``[n, labels]``."""
    return 1 / (1 + np.exp(-np.clip(logits, -700, 700)))


def _check_names(same: bool, found: Sequence[str], labels: Sequence[str]) -> None:
    if not same:
        raise ExpectError(
            f"expect: the notebook has answers for {', '.join(found)}, but the labels are {', '.join(labels)}. Name "
            "the same ones, by --labels or in the file."
        )
