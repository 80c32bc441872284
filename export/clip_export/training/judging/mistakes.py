"""The images that a head is most confidently wrong about: the first thing to look at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from clip_export.training.judging.evaluation import Evaluation
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL


class Mistake(NamedTuple):
    """A wrong answer.

    Attributes:
        row: of the example in the evaluation.
        said: what the head said, for people.
        true: what is so.
    """

    row: int
    said: str
    true: str


def worst_mistakes(evaluation: Evaluation, most: int = 24) -> list[Mistake]:
    """Return the most confident mistakes, or the largest errors of a regression, worst first."""
    worst = _FINDERS.get(evaluation.task, _of_labels)(evaluation)
    return [mistake for _, mistake in sorted(worst, key=lambda item: -item[0])[:most]]


def _of_classes(evaluation: Evaluation) -> list[tuple[float, Mistake]]:
    names, predicted = evaluation.labels, evaluation.predicted.argmax(1)
    found = []
    for row in np.flatnonzero(~evaluation.right).tolist():
        said = predicted[row]
        confidence = float(evaluation.probabilities[row, said])
        found.append((confidence, Mistake(row, f"{names[said]} {confidence:.0%}", names[evaluation.targets[row]])))
    return found


def _of_labels(evaluation: Evaluation) -> list[tuple[float, Mistake]]:
    found = []
    for row, index in np.argwhere(~evaluation.right).tolist():
        probability, label = float(evaluation.probabilities[row, index]), evaluation.labels[index]
        said = evaluation.predicted[row, index]
        confidence = probability if said else 1 - probability
        true = f"has no {label}" if said else f"has {label}"
        found.append((confidence, Mistake(row, f"{'' if said else 'no '}{label}, {probability:.0%}", true)))
    return found


def _of_values(evaluation: Evaluation) -> list[tuple[float, Mistake]]:
    errors = np.abs(evaluation.logits - evaluation.targets) / np.maximum(evaluation.targets.std(0), 1e-12)
    found = []
    for row, index in enumerate(errors.argmax(1).tolist()):
        label, said, true = evaluation.labels[index], evaluation.logits[row, index], evaluation.targets[row, index]
        found.append((float(errors[row, index]), Mistake(row, f"{label} {said:.4g}", f"{true:.4g}")))
    return found


_FINDERS = {SINGLE_LABEL: _of_classes, REGRESSION: _of_values}
