"""How good a head is, on examples that it did not learn from, and how sure one can be of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clip_export.extra import require
from clip_export.heads.calibration import reliability
from clip_export.heads.outputs import probabilities
from clip_export.training.epochs import Examples
from clip_export.training.judging.thresholds import OperatingRule, threshold_at
from clip_toolkit.spec.tasks import DEFAULT_THRESHOLD, REGRESSION, SINGLE_LABEL

RESAMPLES = 500
"""Bootstrap samples behind each 95 % interval (percentile method: Efron and Tibshirani 1993, chapter 13)."""

FIXED_SPECIFICITY = 0.9
"""Where the sensitivity of each label is read off its ROC curve."""

Array = NDArray[Any]


class Interval(NamedTuple):
    """A figure and its bootstrap 95 % interval; NaN where it is not defined, such as for a label without examples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LabelFigures:
    """Figures of one label, or of one value of a regression.

    Attributes:
        label: its name.
        support: examples that have it.
        figures: by name: precision, recall, F1, AUROC, AUPRC, sensitivity at `FIXED_SPECIFICITY`; of a regression MAE,
            RMSE and R squared.
    """

    label: str
    support: int
    figures: dict[str, Interval]


@dataclass(frozen=True)
class Evaluation:
    """What a head made of examples.

    Attributes:
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        labels: class names, or names of values.
        targets: as in `clip_export.data.dataset.Dataset`.
        logits: float32 ``[n, labels]``; the values of a regression.
        probabilities: float32 ``[n, labels]``, calibrated; ``[n, 0]`` for a regression.
        decisions: what is said: int64 ``[n]``, or bool ``[n, labels]`` for multi-label, or the values.
        score: share of right decisions, or R squared.
        by_label: figures of each label.
        calibration_error: before and after the temperature; none for a regression.
    """

    task: str
    labels: tuple[str, ...]
    targets: Array
    logits: Array
    probabilities: Array
    decisions: Array
    score: Interval
    by_label: tuple[LabelFigures, ...]
    calibration_error: tuple[float, ...] = field(default=())

    def confusion(self) -> Array:
        """Counts int64 ``[labels, labels]`` of true by said class, of a single-label task."""
        counts = np.zeros((len(self.labels),) * 2, np.int64)
        np.add.at(counts, (self.targets, self.decisions), 1)
        return counts

    def is_true(self) -> NDArray[np.bool_]:
        """``[n, labels]``: which labels the examples have."""
        if self.task == SINGLE_LABEL:
            return np.arange(len(self.labels)) == self.targets[:, None]
        return np.asarray(self.targets > 0.5)


def evaluate(
    head: nn.Module,
    examples: Examples,
    labels: Sequence[str],
    *,
    task: str = SINGLE_LABEL,
    temperature: float = 1.0,
    thresholds: Mapping[str, float] | None = None,
    groups: Sequence[str] = (),
) -> Evaluation:
    """Judge a head.

    Args:
        head: from features to logits.
        examples: what it did not learn from.
        labels: class names, or names of values.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        temperature: as in `clip_toolkit.spec.classifier.ModelSpec`.
        thresholds: likewise.
        groups: of each example; whole groups are drawn for the intervals, since their images are not independent.

    Raises:
        MissingDependencyError: scikit-learn, of the extra ``report``, is not installed.
    """
    require("report", "sklearn")
    head.eval()
    with torch.inference_mode():
        logits = head(examples.features)
        answers = probabilities(logits, task, temperature).numpy()
        before = probabilities(logits, task).numpy()
    targets, labels = examples.targets.numpy(), tuple(labels)
    decisions = decide(answers, labels, task, thresholds or {}) if task != REGRESSION else logits.numpy()
    samples = _resamples(len(targets), groups)
    score = _interval(_score_of(task, targets, decisions), samples)
    partial = Evaluation(task, labels, targets, logits.numpy(), answers, decisions, score, ())
    by_label = tuple(_figures(partial, index, samples) for index in range(len(labels)))
    errors = () if task == REGRESSION else tuple(_calibration(p, partial)[1] for p in (before, answers))
    return Evaluation(task, labels, targets, logits.numpy(), answers, decisions, score, by_label, errors)


def decide(answers: Array, labels: tuple[str, ...], task: str, thresholds: Mapping[str, float]) -> Array:
    """What the runtime says of probabilities ``[n, labels]``: classes ``[n]``, or which labels ``[n, labels]``."""
    if task != SINGLE_LABEL:
        return np.asarray(answers >= [thresholds.get(label, DEFAULT_THRESHOLD) for label in labels])
    for label, threshold in thresholds.items():
        index = labels.index(label)
        return np.where(answers[:, index] >= threshold, index, 1 - index)
    return np.asarray(answers.argmax(1))


def reliability_of(answers: Array, evaluation: Evaluation) -> tuple[Array, float]:
    """Reliability of probabilities, as `clip_export.heads.calibration.reliability` returns it."""
    return _calibration(answers, evaluation)


def _calibration(answers: Array, evaluation: Evaluation) -> tuple[Array, float]:
    if evaluation.task == SINGLE_LABEL:
        return reliability(answers.max(1).astype(np.float64), answers.argmax(1) == evaluation.targets)
    return reliability(answers.ravel().astype(np.float64), evaluation.is_true().ravel())


def _score_of(task: str, targets: Array, decisions: Array) -> Callable[[Array], float]:
    if task != REGRESSION:
        right = decisions == (targets if task == SINGLE_LABEL else targets > 0.5)
        return lambda rows: float(right[rows].mean())
    from sklearn.metrics import r2_score

    return lambda rows: float(r2_score(targets[rows], decisions[rows])) if len(rows) > 1 else float("nan")


def _figures(evaluation: Evaluation, index: int, samples: list[Array]) -> LabelFigures:
    named = _value_statistics if evaluation.task == REGRESSION else _label_statistics
    figures = {name: _interval(statistic, samples) for name, statistic in named(evaluation, index).items()}
    count = len(evaluation.targets) if evaluation.task == REGRESSION else int(evaluation.is_true()[:, index].sum())
    return LabelFigures(evaluation.labels[index], count, figures)


def _label_statistics(evaluation: Evaluation, index: int) -> dict[str, Callable[[Array], float]]:
    """Plain counts where a count will do: scikit-learn's checks of its arguments take longer than all of them."""
    from sklearn.metrics import average_precision_score

    true, scores = evaluation.is_true()[:, index], evaluation.probabilities[:, index].astype(np.float64)
    decisions = evaluation.decisions
    said = decisions == index if evaluation.task == SINGLE_LABEL else decisions[:, index]

    def where_both(metric: Callable[[Array, Array], float]) -> Callable[[Array], float]:
        return lambda rows: float(metric(true[rows], scores[rows])) if 0 < true[rows].sum() < len(rows) else np.nan

    return {
        "precision": lambda rows: _share((said & true)[rows].sum(), said[rows].sum()),
        "recall": lambda rows: _share((said & true)[rows].sum(), true[rows].sum()),
        "F1": lambda rows: _share(2 * (said & true)[rows].sum(), said[rows].sum() + true[rows].sum()),
        "AUROC": where_both(_area_under_roc),
        "AUPRC": where_both(average_precision_score),
        f"sensitivity at {FIXED_SPECIFICITY:.0%} specificity": where_both(_sensitivity),
    }


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else float("nan")


def _area_under_roc(true: Array, scores: Array) -> float:
    """The Mann-Whitney statistic: the chance that a positive scores above a negative, ties counting half."""
    from scipy.stats import rankdata

    positives = int(true.sum())
    ranks = rankdata(scores)[true].sum() - positives * (positives + 1) / 2
    return float(ranks / (positives * (len(true) - positives)))


def _sensitivity(true: Array, scores: Array) -> float:
    threshold = threshold_at(scores, true, OperatingRule("specificity", FIXED_SPECIFICITY))
    return float((scores >= threshold)[true].mean())


def _value_statistics(evaluation: Evaluation, index: int) -> dict[str, Callable[[Array], float]]:
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    true, said = evaluation.targets[:, index], evaluation.logits[:, index]
    metrics = {"MAE": mean_absolute_error, "RMSE": root_mean_squared_error, "R squared": r2_score}

    def on(metric: Callable[..., float]) -> Callable[[Array], float]:
        return lambda rows: float(metric(true[rows], said[rows])) if len(rows) > 1 else np.nan

    return {name: on(metric) for name, metric in metrics.items()}


def _resamples(count: int, groups: Sequence[str]) -> list[Array]:
    """All rows first, then `RESAMPLES` draws with replacement: of rows, or of whole groups."""
    rng = np.random.default_rng(0)
    rows = np.arange(count)
    if not any(groups):
        return [rows, *(rng.integers(0, count, count) for _ in range(RESAMPLES))]
    names = [group or f"\0{index}" for index, group in enumerate(groups)]
    _, inverse = np.unique(names, return_inverse=True)
    members = [rows[inverse == index] for index in range(inverse.max() + 1)]
    draws = (rng.integers(0, len(members), len(members)) for _ in range(RESAMPLES))
    return [rows, *(np.concatenate([members[index] for index in draw]) for draw in draws)]


def _interval(statistic: Callable[[Array], float], samples: list[Array]) -> Interval:
    value, *others = map(statistic, samples)
    defined = [other for other in others if np.isfinite(other)]
    low, high = np.percentile(defined, [2.5, 97.5]) if defined and np.isfinite(value) else (np.nan, np.nan)
    return Interval(value, float(low), float(high))
