"""The operating point of a head: its temperature and thresholds, and what it decides with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from clip_export.heads.calibration import fit_temperature
from clip_export.heads.outputs import probabilities
from clip_export.training.epochs import Examples
from clip_export.training.judging.evaluation import answer
from clip_export.training.objective import score
from clip_toolkit.judging.answers import Answers
from clip_toolkit.judging.scores import share_right
from clip_toolkit.judging.thresholds import OperatingRule, check_rule, choose_thresholds
from clip_toolkit.spec.tasks import SINGLE_LABEL


class Decisions(NamedTuple):
    """How a head's logits become decisions, as in `clip_toolkit.spec.classifier.ModelSpec`."""

    temperature: float
    thresholds: dict[str, float]


@dataclass(frozen=True)
class Judge:
    """Bring heads to one operating point, each by its own validation answers, so that their figures compare.

    Attributes:
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        labels: class names, or names of values.
        rule: how thresholds are chosen.
        positive: of two labels the one to detect; the last one if None.
        calibrate: whether a temperature is fitted.

    Raises:
        DatasetError: the rule does not suit the task.
    """

    task: str
    labels: tuple[str, ...]
    rule: OperatingRule = OperatingRule()
    positive: str | None = None
    calibrate: bool = True

    def __post_init__(self) -> None:
        """Refuse a rule that does not suit the task."""
        check_rule(self.rule, self.task, self.labels, self.positive)

    def decisions(self, head: nn.Module, validation: Examples) -> Decisions:
        """Choose temperature and thresholds of a head on validation examples."""
        with torch.inference_mode():
            logits = head(validation.features)
        temperature = fit_temperature(logits.clone(), validation.targets, self.task) if self.calibrate else 1.0
        answers = probabilities(logits, self.task, temperature).numpy()
        targets = validation.targets.numpy()
        return Decisions(
            temperature,
            choose_thresholds(answers, targets, self.task, self.labels, self.rule, positive=self.positive),
        )

    def answers(self, head: nn.Module, decisions: Decisions, examples: Examples) -> Answers:
        """Run a head on examples, and decide."""
        temperature, thresholds = decisions
        return answer(head, examples, self.labels, task=self.task, temperature=temperature, thresholds=thresholds)

    def score(self, head: nn.Module, validation: Examples, held_out: Examples) -> float:
        """Share of right decisions on ``held_out`` at the operating point; of a regression R squared."""
        return share_right(self.answers(head, self.decisions(head, validation), held_out))


def plain_score(head: nn.Module, examples: Examples, task: str = SINGLE_LABEL) -> float:
    """Share of right decisions without thresholds; of a regression R squared."""
    with torch.inference_mode():
        return score(head(examples.features), examples.targets, task)
