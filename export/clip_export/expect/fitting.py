"""What may become of logits: labels in another order, another temperature, a sigmoid for a softmax."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, minimize_scalar

from clip_export.expect.answers import Answers, Rows
from clip_export.expect.comparing import Comparison, compare, probabilities
from clip_export.expect.reasons import Reason
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

_TEMPERATURES = (1e-3, 1e3)
_NEAR_ONE = 0.01  # of the logarithm: a temperature that explains nothing


class Setting(NamedTuple):
    """What is made of logits, and what the notebook's answers are held to.

    Attributes:
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        labels: in the order of the columns.
        temperature: as exported.
        tolerance: relative bound of a difference.
    """

    task: str
    labels: tuple[str, ...]
    temperature: float
    tolerance: float


class Fit(NamedTuple):
    """An explanation and what it leaves unexplained."""

    reasons: tuple[Reason, ...]
    left: Comparison


def fits(answers: Answers, logits: Rows, setting: Setting, most: int) -> Iterator[Fit]:
    """Explanations of at most ``most`` reasons, the one without any first.

    Args:
        answers: the notebook's, fitted to the labels.
        logits: float64 ``[n, labels]``, of a model that is to give them.
        setting: what is made of them.
        most: number of reasons that an explanation may have.
    """
    yield Fit((), _compared(answers, logits, setting))
    if most < 1:
        return
    for reason, changed_logits, changed in _changes(answers, logits, setting):
        yield Fit((reason,), _compared(answers, changed_logits, changed))
        if most > 1:
            for second, twice, last in _changes(answers, changed_logits, changed):
                if second.remedy.split()[2] != reason.remedy.split()[2]:
                    yield Fit((reason, second), _compared(answers, twice, last))


def _compared(answers: Answers, logits: Rows, setting: Setting) -> Comparison:
    task, labels, temperature, tolerance = setting
    return compare(answers, logits, task, labels, temperature=temperature, tolerance=tolerance)


def _changes(answers: Answers, logits: Rows, setting: Setting) -> Iterator[tuple[Reason, Rows, Setting]]:
    if answers.probabilities is not None and setting.task != REGRESSION:
        task = SINGLE_LABEL if setting.task == MULTI_LABEL else MULTI_LABEL
        text = f"made probabilities with a {'softmax' if task == SINGLE_LABEL else 'sigmoid'}"
        yield Reason(text, f"export with --task {task}"), logits, setting._replace(task=task)
    order = _order(answers, logits, setting)
    if (order != np.arange(len(order))).any():
        labels = [""] * len(order)
        for column, label in zip(order, setting.labels, strict=True):
            labels[column] = label
        reason = Reason(
            f"had its labels in the order {', '.join(labels)}", f"export with --labels {shlex.join(labels)}"
        )
        yield reason, logits[:, order], setting
    if answers.compared != "labels" and setting.task != REGRESSION:
        yield from _tempered(answers, logits, setting)


def _tempered(answers: Answers, logits: Rows, setting: Setting) -> Iterator[tuple[Reason, Rows, Setting]]:
    factor = _temperature(answers, logits, setting)
    if abs(np.log(factor)) > _NEAR_ONE:
        value = float(f"{factor * setting.temperature:.5g}")
        reason = Reason(f"divided the logits by a temperature of {value:g}", f"export with --temperature {value:g}")
        yield reason, logits / factor, setting


def _order(answers: Answers, logits: Rows, setting: Setting) -> NDArray[np.intp]:
    """For each column of the answers the column of the logits that is most like it."""
    count = logits.shape[1]
    if answers.decisions is not None and answers.compared == "labels":
        said = np.array([setting.labels.index(label) for label in answers.decisions])
        ours = logits.argmax(axis=1)
        cost = -np.array([[np.sum((said == j) & (ours == i)) for i in range(count)] for j in range(count)])
    else:
        theirs, mine = answers.logits, logits
        if theirs is None:
            theirs, mine = answers.probabilities, probabilities(logits, setting.task, setting.temperature)
        assert theirs is not None
        cost = np.abs(_ranked(theirs)[:, :, None] - _ranked(mine)[:, None, :]).mean(axis=0)
    return linear_sum_assignment(cost)[1]


def _ranked(values: Rows) -> Rows:
    """Columns at a common scale, so that a temperature hides no order."""
    return values / max(float(np.abs(values).max()), 1e-12)


def _temperature(answers: Answers, logits: Rows, setting: Setting) -> float:
    """By what to divide the logits so that they come closest to the answers."""
    if answers.logits is not None:
        along = float((logits * answers.logits).sum())
        return float((logits**2).sum()) / along if along > 0 else 1.0
    wanted = answers.probabilities
    assert wanted is not None

    def distance(logarithm: float) -> float:
        found = probabilities(logits, setting.task, float(np.exp(logarithm)) * setting.temperature)
        return float(((found - wanted) ** 2).mean())

    low, high = np.log(_TEMPERATURES)
    starts: Sequence[float] = np.linspace(low, high, 40).tolist()
    best = min(range(len(starts)), key=lambda i: distance(starts[i]))
    around = (starts[max(best - 1, 0)], starts[min(best + 1, len(starts) - 1)])
    found = minimize_scalar(distance, bounds=around, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))
