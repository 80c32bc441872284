"""Everything that can be said of a model's answers to labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from clip_toolkit.data.dataset import Dataset
from clip_toolkit.judging.answers import Answers, Array
from clip_toolkit.judging.calibration import brier_score, log_loss
from clip_toolkit.judging.coverage import SetFigures, set_figures
from clip_toolkit.judging.figures import (
    Interval,
    LabelFigures,
    Samples,
    label_figures,
    score_interval,
    share_interval,
)
from clip_toolkit.judging.mistakes import Mistake, mistakes
from clip_toolkit.judging.novelty import NoveltyFigures, novelty_figures
from clip_toolkit.judging.rates import Rates, label_rates
from clip_toolkit.judging.thresholds import OperatingRule, positive_index, threshold_at
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL


class Calibration(NamedTuple):
    """How far probabilities are from what they promise: the smaller, the better.

    Attributes:
        ece: expected calibration error, of `clip_toolkit.judging.calibration.reliability`.
        brier: of `clip_toolkit.judging.calibration.brier_score`.
        log_loss: of `clip_toolkit.judging.calibration.log_loss`.
    """

    ece: float
    brier: float
    log_loss: float


class OperatingPoint(NamedTuple):
    """What a threshold reaches on the images that it was chosen on.

    Attributes:
        label: what is detected.
        asked: the least sensitivity.
        threshold: the highest that reaches it.
        sensitivity, specificity, precision: shares that it gives; NaN where there is nothing to count.
    """

    label: str
    asked: float
    threshold: float
    sensitivity: Interval
    specificity: Interval
    precision: Interval


class Slice(NamedTuple):
    """The score of the images that have one value in a column."""

    column: str
    value: str
    images: int
    score: Interval


@dataclass(frozen=True)
class Evaluation:
    """How good a model is.

    Attributes:
        answers: what it answered.
        samples: its images, by their groups.
        score: share of right decisions, or R squared.
        by_label: figures of each label.
        calibration: of its probabilities; None for a regression.
        rates: at the model's own operating point, of each label with a threshold, and of two labels of the positive.
        points: at the sensitivities that were asked for.
        slices: by column, the worst first.
        mistakes: all of them, the most confident first.
        sets: of a model that gives sets of labels.
        novelty: of a model that tells it.
    """

    answers: Answers
    samples: Samples
    score: Interval
    by_label: tuple[LabelFigures, ...]
    calibration: Calibration | None
    rates: tuple[Rates, ...]
    points: tuple[OperatingPoint, ...]
    slices: tuple[Slice, ...]
    mistakes: tuple[Mistake, ...]
    sets: SetFigures | None
    novelty: NoveltyFigures | None


def evaluate(
    answers: Answers,
    dataset: Dataset,
    spec: ModelSpec,
    *,
    sensitivities: Sequence[float] = (),
    positive: str | None = None,
    novelty: Array | None = None,
) -> Evaluation:
    """Judge answers.

    Args:
        answers: of the model.
        dataset: the images, some columns of which are slices.
        spec: of the model.
        sensitivities: of the operating points to show.
        positive: of two labels the one to detect.
        novelty: ``[n]``, of a model that tells it.

    Raises:
        DatasetError: ``positive`` is no label.
    """
    samples = Samples.of(len(dataset.files), dataset.groups)
    detected = labels_to_detect(answers, spec, positive)
    return Evaluation(
        answers,
        samples,
        score_interval(answers, samples),
        tuple(label_figures(answers, index, samples) for index in range(len(answers.labels))),
        None if answers.task == REGRESSION else _calibration(answers, spec.temperature),
        tuple(label_rates(answers, index, samples) for index in detected),
        tuple(_point(answers, index, share, samples) for index in detected for share in sensitivities),
        tuple(_slices(answers, dataset)),
        tuple(mistakes(answers)),
        None if spec.coverage is None else set_figures(answers, spec.coverage, samples),
        None if novelty is None or spec.novelty is None else novelty_figures(answers, novelty, spec.novelty, samples),
    )


def labels_to_detect(answers: Answers, spec: ModelSpec, positive: str | None = None) -> list[int]:
    """Return indices of the labels that a threshold can decide: all of multi-label, of two labels the positive one."""
    if answers.task == MULTI_LABEL:
        return [*range(len(answers.labels))]
    if answers.task != SINGLE_LABEL or len(answers.labels) != 2:
        return []
    return [positive_index(answers.labels, positive or next(iter(spec.thresholds), None))]


def _calibration(answers: Answers, temperature: float) -> Calibration:
    return Calibration(
        answers.reliability()[1],
        brier_score(answers.probabilities, answers.true, answers.task),
        log_loss(answers.logits / np.float64(temperature), answers.true, answers.task),
    )


def _point(answers: Answers, index: int, share: float, samples: Samples) -> OperatingPoint:
    scores, true = answers.probabilities[:, index].astype(np.float64), answers.true[:, index]
    threshold = threshold_at(scores, true, OperatingRule("sensitivity", share))
    found = scores >= threshold
    return OperatingPoint(
        answers.labels[index],
        share,
        threshold,
        share_interval(found, samples, among=true),
        share_interval(~found, samples, among=~true),
        share_interval(true, samples, among=found),
    )


def _slices(answers: Answers, dataset: Dataset) -> list[Slice]:
    found = []
    for column, cells in dataset.columns.items():
        values = np.array(cells)
        rows = {value: np.flatnonzero(values == value) for value in sorted(set(cells))}
        scores = [Slice(column, value, len(rows[value]), _score_of(answers, dataset, rows[value])) for value in rows]
        found += sorted(scores, key=lambda item: item.score.value)
    return found


def _score_of(answers: Answers, dataset: Dataset, rows: np.ndarray) -> Interval:
    part = Answers(
        answers.task,
        answers.labels,
        answers.targets[rows],
        answers.logits[rows],
        answers.probabilities[rows],
        answers.predicted[rows],
    )
    return score_interval(part, Samples.of(len(rows), [dataset.groups[row] for row in rows]))
