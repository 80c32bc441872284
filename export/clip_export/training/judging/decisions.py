"""The temperature and the thresholds of a trained head, and how often it is right with them."""

from __future__ import annotations

import torch
from torch import nn

from clip_export.heads.calibration import fit_temperature
from clip_export.heads.files import TrainedHead
from clip_export.heads.outputs import probabilities
from clip_export.training.epochs import Examples
from clip_export.training.judging.answers import answer
from clip_export.training.judging.thresholds import OperatingRule, choose_thresholds
from clip_export.training.objective import score
from clip_toolkit.spec.tasks import REGRESSION


def decisions_for(
    head: nn.Module,
    validation: Examples,
    task: str,
    labels: tuple[str, ...],
    rule: OperatingRule,
    *,
    positive: str | None = None,
    calibrate: bool = True,
) -> tuple[float, dict[str, float]]:
    """Temperature and thresholds, as in `clip_toolkit.spec.classifier.ModelSpec`, of a head on validation examples.

    Raises:
        DatasetError: the rule does not suit the task.
    """
    with torch.inference_mode():
        logits = head(validation.features)
    temperature = fit_temperature(logits.clone(), validation.targets, task) if calibrate else 1.0
    answers = probabilities(logits, task, temperature).numpy()
    return temperature, choose_thresholds(answers, validation.targets.numpy(), task, labels, rule, positive=positive)


def plain_score(head: nn.Module, examples: Examples, task: str) -> float:
    """Share of right decisions without thresholds; of a regression R squared."""
    with torch.inference_mode():
        return score(head(examples.features), examples.targets, task)


def held_out_score(head: TrainedHead, examples: Examples) -> float:
    """Share of decisions, with the head's thresholds, that are right; of a regression R squared."""
    if head.task == REGRESSION:
        return plain_score(head.module, examples, REGRESSION)
    assert head.labels is not None
    return float(
        answer(
            head.module,
            examples,
            head.labels,
            task=head.task,
            temperature=head.temperature,
            thresholds=head.thresholds,
        ).right.mean()
    )
