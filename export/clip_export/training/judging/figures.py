"""Figures of a head on examples, each with its bootstrap interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from clip_export.heads.outputs import r_squared
from clip_export.training.judging.answers import Answers, Array
from clip_export.training.judging.thresholds import OperatingRule, threshold_at
from clip_toolkit.spec.tasks import REGRESSION

RESAMPLES = 500
"""Bootstrap samples behind each 95 % interval (percentile method: Efron and Tibshirani 1993, chapter 13)."""

FIXED_SPECIFICITY = 0.9
"""Where the sensitivity of each label is read off its ROC curve."""

Samples = list[Array]
"""Row numbers, int64: of all rows, then of each bootstrap sample."""


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


def label_figures(answers: Answers, index: int, samples: Samples) -> LabelFigures:
    """Compute the figures of one label, or of one value of a regression."""
    named = _value_statistics if answers.task == REGRESSION else _label_statistics
    figures = {name: interval(statistic, samples) for name, statistic in named(answers, index).items()}
    count = len(answers.targets) if answers.task == REGRESSION else int(answers.true[:, index].sum())
    return LabelFigures(answers.labels[index], count, figures)


def _label_statistics(answers: Answers, index: int) -> dict[str, Callable[[Array], float]]:
    """Plain counts where a count will do: scikit-learn's checks of its arguments take longer than all of them."""
    true, scores = answers.true[:, index], answers.probabilities[:, index].astype(np.float64)
    said = answers.predicted[:, index]

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
    """Compute the Mann-Whitney statistic: the chance that a positive scores above a negative, ties as half."""
    positives = int(true.sum())
    ranks = rankdata(scores)[true].sum() - positives * (positives + 1) / 2
    return float(ranks / (positives * (len(true) - positives)))


def _sensitivity(true: Array, scores: Array) -> float:
    threshold = threshold_at(scores, true, OperatingRule("specificity", FIXED_SPECIFICITY))
    return float((scores >= threshold)[true].mean())


def _value_statistics(answers: Answers, index: int) -> dict[str, Callable[[Array], float]]:
    true, said = answers.targets[:, index], answers.logits[:, index]
    errors = said - true
    return {
        "MAE": lambda rows: float(np.abs(errors[rows]).mean()),
        "RMSE": lambda rows: float(np.sqrt(np.square(errors[rows]).mean())),
        "R squared": lambda rows: float(r_squared(true[rows], said[rows])),
    }


def resample(count: int, groups: Sequence[str]) -> Samples:
    """Draw row numbers: all of them first, then `RESAMPLES` draws with replacement: of rows, or of whole groups."""
    rng = np.random.default_rng(0)
    rows = np.arange(count)
    if not any(groups):
        return [rows, *(rng.integers(0, count, count) for _ in range(RESAMPLES))]
    names = [group or f"\0{index}" for index, group in enumerate(groups)]
    _, inverse = np.unique(names, return_inverse=True)
    members = [rows[inverse == index] for index in range(inverse.max() + 1)]
    draws = (rng.integers(0, len(members), len(members)) for _ in range(RESAMPLES))
    return [rows, *(np.concatenate([members[index] for index in draw]) for draw in draws)]


def interval(statistic: Callable[[Array], float], samples: Samples) -> Interval:
    """Compute a statistic of row numbers on all rows, with the percentiles of its resamples."""
    value, *others = map(statistic, samples)
    defined = [other for other in others if np.isfinite(other)]
    low, high = np.percentile(defined, [2.5, 97.5]) if defined and np.isfinite(value) else (np.nan, np.nan)
    return Interval(value, float(low), float(high))
