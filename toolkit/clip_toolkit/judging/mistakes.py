"""The images that a model is wrong about: the first thing to look at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from clip_toolkit.judging.answers import Answers
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL


class Mistake(NamedTuple):
    """A wrong answer.

    Attributes:
        row: of the example in the answers.
        said: what the model said, for people.
        true: what is so.
    """

    row: int
    said: str
    true: str


def mistakes(answers: Answers) -> list[Mistake]:
    """Return all mistakes, the most confident first; of a regression every error, the largest first."""
    found = _FINDERS.get(answers.task, _of_labels)(answers)
    return [mistake for _, mistake in sorted(found, key=lambda item: -item[0])]


def _of_classes(answers: Answers) -> list[tuple[float, Mistake]]:
    names, predicted = answers.labels, answers.predicted.argmax(1)
    found = []
    for row in np.flatnonzero(~answers.right).tolist():
        said = predicted[row]
        confidence = float(answers.probabilities[row, said])
        found.append((confidence, Mistake(row, f"{names[said]} {confidence:.0%}", names[answers.targets[row]])))
    return found


def _of_labels(answers: Answers) -> list[tuple[float, Mistake]]:
    found = []
    for row, index in np.argwhere(~answers.right).tolist():
        probability, label = float(answers.probabilities[row, index]), answers.labels[index]
        said = answers.predicted[row, index]
        confidence = probability if said else 1 - probability
        true = f"has no {label}" if said else f"has {label}"
        found.append((confidence, Mistake(row, f"{'' if said else 'no '}{label}, {probability:.0%}", true)))
    return found


def _of_values(answers: Answers) -> list[tuple[float, Mistake]]:
    errors = np.abs(answers.logits - answers.targets) / np.maximum(answers.targets.std(0), 1e-12)
    found = []
    for row, index in enumerate(errors.argmax(1).tolist()):
        label, said, true = answers.labels[index], answers.logits[row, index], answers.targets[row, index]
        found.append((float(errors[row, index]), Mistake(row, f"{label} {said:.4g}", f"{true:.4g}")))
    return found


_FINDERS = {SINGLE_LABEL: _of_classes, REGRESSION: _of_values}
