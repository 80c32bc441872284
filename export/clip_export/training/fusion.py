"""Does it pay to read picture and text together? Heads trained alike on each of them alone tell."""

from __future__ import annotations

from typing import NamedTuple

import torch

from clip_export.training.epochs import Examples
from clip_export.training.loop import train_head
from clip_export.training.objective import score
from clip_export.training.options import TrainingOptions
from clip_export.training.preparation import Bar, Prepared


class Parts(NamedTuple):
    """Scores on the held-out examples, as `clip_export.training.objective.score` gives them.

    Attributes:
        image: of a head that reads the image's feature alone.
        text: of one that reads the text's alone.
        both: of a head that reads both.
    """

    image: float
    text: float
    both: float


def parts(prepared: Prepared, head: torch.nn.Module, options: TrainingOptions, bar: Bar) -> Parts | None:
    """Score a head beside two that see half of its input, trained with the same options; None without texts."""
    if prepared.texts is None:
        return None
    width = prepared.train.features.shape[1] - prepared.texts.values.shape[1]
    halves = {"image alone": slice(None, width), "text alone": slice(width, None)}
    image, text = (_score_alone(prepared, half, options, bar, title) for title, half in halves.items())
    return Parts(image, text, _score(prepared, head, slice(None)))


def _score_alone(prepared: Prepared, half: slice, options: TrainingOptions, bar: Bar, title: str) -> float:
    train, validation = (_narrowed(examples, half) for examples in (prepared.train, prepared.validation))
    dataset = prepared.dataset
    with bar(title, options.epochs) as advance:
        trained = train_head(train, validation, len(dataset.labels), options, lambda _: advance(1), task=dataset.task)
    return _score(prepared, trained.head, half)


def _score(prepared: Prepared, head: torch.nn.Module, half: slice) -> float:
    features, targets = _narrowed(prepared.held_out.examples, half)
    with torch.inference_mode():
        return score(head(features), targets, prepared.dataset.task)


def _narrowed(examples: Examples, half: slice) -> Examples:
    return examples._replace(features=examples.features[:, half].contiguous())
