"""Figures of answers to examples, each with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from clip_toolkit.judging.answers import Answers, Array
from clip_toolkit.judging.curves import area_under_roc, average_precision
from clip_toolkit.judging.scores import r_squared, share_text
from clip_toolkit.judging.thresholds import OperatingRule, threshold_at
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL

RESAMPLES = 500
"""Bootstrap samples behind the interval of what is no share (percentile method: Efron and Tibshirani 1993, ch. 13)."""

FIXED_SPECIFICITY = 0.9
"""Where the sensitivity of each label is read off its ROC curve."""


@dataclass(frozen=True)
class Samples:
    """Examples and their bootstrap samples.

    Attributes:
        groups: the group of each row, int64 ``[n]``; of rows that have none, a number of their own.
    """

    groups: Array

    @classmethod
    def of(cls, count: int, groups: Sequence[str] = ()) -> Samples:
        """Make them of ``count`` rows by the names of their groups, which are empty where there is none."""
        if not any(groups):
            return cls(np.arange(count))
        names = [group or f"\0{index}" for index, group in enumerate(groups)]
        return cls(np.unique(names, return_inverse=True)[1])

    def draws(self) -> Iterator[Array]:
        """Yield row numbers: all, then `RESAMPLES` times rows or whole groups, whose rows are not independent.

        They are drawn with replacement, and the same at every call.
        """
        rng = np.random.default_rng(0)
        count = len(self.groups)
        yield np.arange(count)
        sizes = np.bincount(self.groups)
        if len(sizes) == count:
            yield from (rng.integers(0, count, count) for _ in range(RESAMPLES))
            return
        members = np.split(np.argsort(self.groups, kind="stable"), np.cumsum(sizes)[:-1])
        for _ in range(RESAMPLES):
            yield np.concatenate([members[index] for index in rng.integers(0, len(members), len(members))])


class Interval(NamedTuple):
    """A figure and its 95 % interval; NaN where it is not defined, such as for a label without examples."""

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
    shares: dict[str, Interval] = {} if answers.task == REGRESSION else _label_shares(answers, index, samples)
    figures = shares | {name: interval(statistic, samples) for name, statistic in named(answers, index).items()}
    count = len(answers.targets) if answers.task == REGRESSION else int(answers.true[:, index].sum())
    return LabelFigures(answers.labels[index], count, figures)


def _label_shares(answers: Answers, index: int, samples: Samples) -> dict[str, Interval]:
    true, predicted = answers.true[:, index], answers.predicted[:, index]
    return {
        "precision": share_interval(true, samples, among=predicted),
        "recall": share_interval(predicted, samples, among=true),
    }


def _label_statistics(answers: Answers, index: int) -> dict[str, Callable[[Array], float]]:
    true, scores = answers.true[:, index], answers.probabilities[:, index].astype(np.float64)
    said = answers.predicted[:, index]

    def where_both(metric: Callable[[Array, Array], float]) -> Callable[[Array], float]:
        return lambda rows: float(metric(true[rows], scores[rows])) if 0 < true[rows].sum() < len(rows) else np.nan

    return {
        "F1": lambda rows: _share(2 * (said & true)[rows].sum(), said[rows].sum() + true[rows].sum()),
        "AUROC": where_both(area_under_roc),
        "AUPRC": where_both(average_precision),
        f"sensitivity at {FIXED_SPECIFICITY:.0%} specificity": where_both(_sensitivity),
    }


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else float("nan")


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


def score_interval(answers: Answers, samples: Samples) -> Interval:
    """Compute the share of right decisions, or of a regression R squared, the mean of all values."""
    if answers.task != REGRESSION:
        return share_interval(answers.right, samples)
    return interval(lambda rows: float(r_squared(answers.targets[rows], answers.logits[rows]).mean()), samples)


def interval(statistic: Callable[[Array], float], samples: Samples) -> Interval:
    """Compute a statistic of row numbers on all rows, with the percentiles of its resamples."""
    value, *others = map(statistic, samples.draws())
    defined = [other for other in others if np.isfinite(other)]
    low, high = np.percentile(defined, [2.5, 97.5]) if defined and np.isfinite(value) else (np.nan, np.nan)
    return Interval(value, float(low), float(high))


def share_interval(right: Array, samples: Samples, among: Array | None = None) -> Interval:
    """Compute the share of ``right`` rows with Wilson's score interval (Wilson 1927, doi:10.2307/2276774).

    Unlike resamples of nothing but right answers, it has a width where all are right. Groups are counted, not their
    rows: too wide rather than too narrow, since the rows of a group are seldom all alike.

    Args:
        right: bool ``[n]``, or ``[n, labels]``.
        samples: whose groups are counted.
        among: bool ``[n]``: the rows to look at; all of them if None.
    """
    rows = slice(None) if among is None else among
    count = len(np.unique(samples.groups[rows]))
    if not count:
        return Interval(np.nan, np.nan, np.nan)
    value, z = float(right[rows].mean()), NormalDist().inv_cdf(0.975)
    centre = value + z**2 / (2 * count)
    half = z * np.sqrt(value * (1 - value) / count + (z / (2 * count)) ** 2)
    low, high = (centre - half) / (1 + z**2 / count), (centre + half) / (1 + z**2 / count)
    return Interval(value, min(float(low), value), max(min(float(high), 1.0), value))  # rounding: they meet at 0 and 1


def figure_text(figure: Interval, task: str = SINGLE_LABEL, interval: str = "95% interval ") -> str:
    """Format a share, or R squared, with its 95 % interval, which is named unless ``interval`` is empty."""
    value, low, high = (share_text(each, task) for each in figure)
    return value if math.isnan(figure.value) else f"{value} ({interval}{low} to {high})"
