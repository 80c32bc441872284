"""A notebook's answers held against a model's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clip_export.expect.answers import Answers, Rows, sigmoid, softmax
from clip_toolkit.spec.decisions import DEFAULT_THRESHOLD
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION

TOLERANCE = 1e-3
"""Largest allowed difference, of logits relative to the largest: room for float32 in another order or on another
device. `compare` asks for equal decisions as well."""

_DIGITS = (2, 3, 4)
"""Answers that are all rounded to so many decimal places differ by half of the last one for that alone."""

_ROUNDED = 1e-6  # further than a float32 of such a size is from its decimal form
_LEAST_SCALE = 1e-6


class Comparison(NamedTuple):
    """How far a model's answers are from the notebook's.

    Attributes:
        compared: what was compared, as `clip_export.expect.answers.Answers.compared`.
        difference: the largest; 0 for labels.
        allowed: bound on it.
        scale: largest absolute logit of the notebook; 1 for probabilities and labels.
        spread: how far an answer of the notebook is at most from the mean of its column; 0 for labels.
        changed: rows that are decided otherwise.
        worst: the row of the largest difference.
    """

    compared: str
    difference: float
    allowed: float
    scale: float
    spread: float
    changed: tuple[int, ...]
    worst: int

    @property
    def passed(self) -> bool:
        """Whether every difference is within bounds and every decision the same."""
        return self.difference <= self.allowed and not self.changed

    @property
    def excess(self) -> float:
        """The difference relative to its bound; of labels the number of changed decisions."""
        return len(self.changed) if self.compared == "labels" else self.difference / self.allowed


def compare(
    answers: Answers,
    logits: Rows,
    task: str,
    labels: Sequence[str],
    *,
    temperature: float = 1.0,
    tolerance: float = TOLERANCE,
) -> Comparison:
    """Compare a model's logits, and the probabilities that they become, with the notebook's.

    Args:
        answers: fitted to ``labels``.
        logits: float64 ``[n, labels]``, the model's.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        labels: the model's.
        temperature: by which the logits are divided before they become probabilities.
        tolerance: relative bound.
    """
    chances = probabilities(logits, task, temperature)
    if answers.compared == "labels":
        return _compare_decisions(answers, chances, labels)
    theirs = answers.logits if answers.logits is not None else answers.probabilities
    assert theirs is not None
    of_logits = answers.compared == "logits"
    scale = float(np.abs(theirs).max()) if of_logits else 1.0
    allowed = max(tolerance * max(scale, _LEAST_SCALE), rounding(theirs))
    differences = np.abs((logits if of_logits else chances) - theirs).max(axis=1)
    if of_logits and answers.probabilities is not None and task != REGRESSION:
        beside = np.abs(chances - answers.probabilities).max(axis=1)
        differences = np.maximum(differences, beside * allowed / max(tolerance, rounding(answers.probabilities)))
    changed = _changed(chances, theirs, task, of_logits=of_logits)
    worst = int(differences.argmax())
    spread = float(np.abs(theirs - theirs.mean(axis=0)).max())
    return Comparison(answers.compared, float(differences[worst]), allowed, scale, spread, changed, worst)


def _compare_decisions(answers: Answers, chances: Rows, labels: Sequence[str]) -> Comparison:
    assert answers.decisions is not None
    said = [labels[column] for column in chances.argmax(axis=1)]
    changed = tuple(i for i, (ours, theirs) in enumerate(zip(said, answers.decisions, strict=True)) if ours != theirs)
    return Comparison("labels", 0.0, 0.0, 1.0, 0.0, changed, changed[0] if changed else 0)


def probabilities(logits: Rows, task: str, temperature: float = 1.0) -> Rows:
    """Apply the task to logits: softmax, sigmoid for several labels, or nothing for a regression."""
    if task == REGRESSION:
        return logits
    return sigmoid(logits / temperature) if task == MULTI_LABEL else softmax(logits / temperature)


def _changed(chances: Rows, theirs: Rows, task: str, *, of_logits: bool) -> tuple[int, ...]:
    """Rows whose decision is not one that the notebook's numbers allow; rounded ones may allow two."""
    slack = 2 * rounding(theirs)
    if task == REGRESSION:
        return ()
    if task == MULTI_LABEL:
        margin = theirs if of_logits else theirs - DEFAULT_THRESHOLD
        other = np.where(chances >= DEFAULT_THRESHOLD, margin < -slack, margin >= max(slack, 0)).any(axis=1)
    else:
        chosen = theirs[np.arange(len(theirs)), chances.argmax(axis=1)]
        other = chosen < theirs.max(axis=1) - slack
    return tuple(map(int, np.flatnonzero(other)))


def rounding(values: Rows) -> float:
    """Half a unit of the last decimal place to which all values are rounded; 0 if they are not."""
    for digits in _DIGITS:
        if np.abs(values - np.round(values, digits)).max() < _ROUNDED:
            return 0.5 * float(10**-digits)
    return 0.0
