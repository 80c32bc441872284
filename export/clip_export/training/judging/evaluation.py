"""How good a head is, on examples that it did not learn from, and how sure one can be of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import from_numpy, nn

from clip_export.heads.outputs import probabilities
from clip_export.training.epochs import Examples
from clip_toolkit.judging.answers import Answers, Array
from clip_toolkit.judging.figures import (
    Interval,
    LabelFigures,
    Samples,
    label_figures,
    score_interval,
)
from clip_toolkit.spec.decisions import decide
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL


@dataclass(frozen=True)
class Evaluation(Answers):
    """How good a head is, beside its answers.

    Attributes:
        uncalibrated: float32 ``[n, labels]``, probabilities without the temperature; ``[n, 0]`` for a regression.
        score: share of right decisions, or R squared.
        by_label: figures of each label.
        calibration_error: before and after the temperature; none for a regression.
    """

    uncalibrated: Array
    score: Interval
    by_label: tuple[LabelFigures, ...]
    calibration_error: tuple[float, ...] = ()


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
        groups: of each example; the intervals take whole groups, since their images are not independent.
    """
    answers = answer(head, examples, labels, task=task, temperature=temperature, thresholds=thresholds)
    samples = Samples.of(len(answers.targets), groups)
    before = probabilities(from_numpy(answers.logits), task).numpy()
    errors = () if task == REGRESSION else (answers.reliability(before)[1], answers.reliability()[1])
    return Evaluation(
        **vars(answers),
        uncalibrated=before,
        score=score_interval(answers, samples),
        by_label=tuple(label_figures(answers, index, samples) for index in range(len(answers.labels))),
        calibration_error=errors,
    )


def answer(
    head: nn.Module,
    examples: Examples,
    labels: Sequence[str],
    *,
    task: str = SINGLE_LABEL,
    temperature: float = 1.0,
    thresholds: Mapping[str, float] | None = None,
) -> Answers:
    """Run a head on examples.

    Args:
        head: from features to logits.
        examples: what it did not learn from.
        labels: class names, or names of values.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        temperature: as in `clip_toolkit.spec.classifier.ModelSpec`.
        thresholds: likewise.
    """
    head.eval()
    with torch.inference_mode():
        logits = head(examples.features)
        found = probabilities(logits, task, temperature).numpy()
    predicted = decide(found, task, labels, thresholds or {})
    return Answers(task, tuple(labels), examples.targets.numpy(), logits.numpy(), found, predicted)
