"""What a head reaches at its operating point, beside what simpler ones reach at theirs, and both in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from clip_export.training.judging.decisions import Decisions, Judge
from clip_export.training.preparation import Prepared
from clip_toolkit.judging.figures import Interval, Samples, score_interval
from clip_toolkit.judging.rates import Rates, label_rates
from clip_toolkit.judging.scores import share_right, share_text
from clip_toolkit.judging.thresholds import positive_index
from clip_toolkit.spec.tasks import SINGLE_LABEL


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
    rates = tuple(label_rates(answers, judge.labels.index(label), samples) for label in shown)
    return Outcome(side, len(indices), score_interval(answers, samples), rates)


def _labels_to_detect(judge: Judge, decisions: Decisions) -> Sequence[str]:
    if decisions.thresholds or judge.task != SINGLE_LABEL or len(judge.labels) != 2:
        return [*decisions.thresholds]
    return [judge.labels[positive_index(judge.labels, judge.positive)]]


def brief_text(outcome: Outcome, task: str) -> str:
    """Format the score, and of one label to detect the rates, without intervals."""
    rates = outcome.rates if len(outcome.rates) == 1 else ()
    return ", ".join([share_text(outcome.score.value, task), *_brief_rates(rates)])


def _brief_rates(rates: Sequence[Rates]) -> Iterator[str]:
    for _, sensitivity, specificity in rates:
        yield f"sensitivity {share_text(sensitivity.value, SINGLE_LABEL)}"
        yield f"specificity {share_text(specificity.value, SINGLE_LABEL)}"
