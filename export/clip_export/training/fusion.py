"""Does it pay to read picture and text together? Heads trained alike on each of them alone tell."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from clip_export.training.epochs import Examples
from clip_export.training.judging.decisions import Judge
from clip_export.training.loop import train_head
from clip_export.training.options import TrainingOptions
from clip_export.training.preparation import Bar, Prepared


class Parts(NamedTuple):
    """Scores on the held-out examples, each at the operating point of one rule.

    Attributes:
        image: of a head that reads the image's feature alone.
        text: of one that reads the text's alone.
        both: of a head that reads both.
    """

    image: float
    text: float
    both: float


def parts(prepared: Prepared, head: nn.Module, options: TrainingOptions, judge: Judge, bar: Bar) -> Parts | None:
    """Score a head beside two that see half of its input, trained with the same options; None without texts."""
    if prepared.texts is None:
        return None
    width = prepared.train.features.shape[1] - prepared.texts.values.shape[1]
    halves = {"image alone": slice(None, width), "text alone": slice(width, None)}
    image, text = (
        _score_alone(prepared, half, options, judge=judge, bar=bar, title=title) for title, half in halves.items()
    )
    return Parts(image, text, judge.score(head, prepared.validation, prepared.held_out.examples))


def _score_alone(
    prepared: Prepared, half: slice, options: TrainingOptions, *, judge: Judge, bar: Bar, title: str
) -> float:
    sides = (prepared.train, prepared.validation, prepared.held_out.examples)
    train, validation, held_out = (_narrowed(examples, half) for examples in sides)
    outputs = len(judge.labels)
    with bar(title, options.epochs) as advance:
        trained = train_head(train, validation, outputs, options, lambda _: advance(1), task=judge.task)
    return judge.score(trained.head, validation, held_out)


def _narrowed(examples: Examples, half: slice) -> Examples:
    return examples._replace(features=examples.features[:, half].contiguous())
