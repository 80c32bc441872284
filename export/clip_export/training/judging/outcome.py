"""What a head reaches at its operating point, beside what simpler ones reach at theirs, and both in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from clip_export.training.judging.answers import Answers, share_right
from clip_export.training.judging.decisions import Decisions, Judge
from clip_export.training.judging.figures import Interval, Samples, score_interval, share_interval
from clip_export.training.judging.thresholds import positive_index
from clip_export.training.preparation import Prepared
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL


class Rates(NamedTuple):
    """How many images that have a label are found, and how many that have not are spared."""

    label: str
    sensitivity: Interval
    specificity: Interval


@dataclass(frozen=True)
class Outcome:
    """The figures of a head on one side.

    Attributes:
        side: ``train``, ``validation`` or ``test``.
        images: how many it has.
        score: share of right decisions, or R squared.
        rates: of each label with a threshold; of two labels without one, of the positive one.
    """

    side: str
    images: int
    score: Interval
    rates: tuple[Rates, ...]


@dataclass(frozen=True)
class Judgement:
    """A head's outcomes, and those of others on the same features, each at the operating point of one rule.

    Attributes:
        decisions: the head's.
        train_score: share of right decisions on the training examples, or R squared.
        validation: outcome on the validation side, which chose the operating point.
        held_out: on the side to judge by: the test side, or where there is none again the validation side.
        others: the outcomes of other models on that side, by what they are.
    """

    decisions: Decisions
    train_score: float
    validation: Outcome
    held_out: Outcome
    others: dict[str, Outcome]


def judge_head(
    judge: Judge, prepared: Prepared, head: nn.Module, others: Mapping[str, nn.Module] | None = None
) -> Judgement:
    """Bring a head and others to the judge's operating point on the validation side, and judge them.

    Args:
        judge: the rule.
        prepared: the examples.
        head: from features to logits.
        others: what it is compared with, likewise, by what they are.
    """
    decisions = judge.decisions(head, prepared.validation)
    sides = [_outcome(judge, prepared, head, decisions, number) for number in range(1, len(prepared.sides))]
    return Judgement(
        decisions,
        share_right(judge.answers(head, decisions, prepared.train)),
        sides[0],
        sides[-1],
        {
            name: _outcome(judge, prepared, other, judge.decisions(other, prepared.validation), -1)
            for name, other in (others or {}).items()
        },
    )


def _outcome(judge: Judge, prepared: Prepared, head: nn.Module, decisions: Decisions, number: int) -> Outcome:
    side, indices, examples = prepared.sides[number]
    answers = judge.answers(head, decisions, examples)
    samples = Samples.of(len(indices), [prepared.dataset.groups[index] for index in indices])
    shown = _labels_to_detect(judge, decisions)
    rates = tuple(_rates(answers, judge.labels.index(label), samples) for label in shown)
    return Outcome(side, len(indices), score_interval(answers, samples), rates)


def _labels_to_detect(judge: Judge, decisions: Decisions) -> Sequence[str]:
    if decisions.thresholds or judge.task != SINGLE_LABEL or len(judge.labels) != 2:
        return [*decisions.thresholds]
    return [judge.labels[positive_index(judge.labels, judge.positive)]]


def _rates(answers: Answers, index: int, samples: Samples) -> Rates:
    true, predicted = answers.true[:, index], answers.predicted[:, index]
    return Rates(
        answers.labels[index],
        share_interval(predicted, samples, among=true),
        share_interval(~predicted, samples, among=~true),
    )


def share_text(score: float, task: str) -> str:
    """Format a share as a percentage, R squared as it is."""
    if math.isnan(score):
        return "not defined"
    return f"{score:.3f}" if task == REGRESSION else f"{score:.1%}"


def figure_text(figure: Interval, task: str = SINGLE_LABEL, interval: str = "95% interval ") -> str:
    """Format a share, or R squared, with its 95 % interval, which is named unless ``interval`` is empty."""
    value, low, high = (share_text(each, task) for each in figure)
    return value if math.isnan(figure.value) else f"{value} ({interval}{low} to {high})"


def rates_text(rates: Rates) -> str:
    """Format sensitivity and specificity with their 95 % intervals; they follow a figure that names them."""
    sensitivity, specificity = (figure_text(rate, interval="") for rate in (rates.sensitivity, rates.specificity))
    return f"sensitivity {sensitivity}, specificity {specificity}"


def brief_text(outcome: Outcome, task: str) -> str:
    """Format the score, and of one label to detect the rates, without intervals."""
    rates = outcome.rates if len(outcome.rates) == 1 else ()
    return ", ".join([share_text(outcome.score.value, task), *_brief_rates(rates)])


def _brief_rates(rates: Sequence[Rates]) -> Iterator[str]:
    for _, sensitivity, specificity in rates:
        yield f"sensitivity {share_text(sensitivity.value, SINGLE_LABEL)}"
        yield f"specificity {share_text(specificity.value, SINGLE_LABEL)}"
