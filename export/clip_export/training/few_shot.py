"""Few-shot: a linear head that begins with what the labels' words say, unless validation images say otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch.nn import functional

from clip_export.heads.calibration import fit_temperature
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.zero_shot import ZeroShot, linear_head
from clip_export.training.epochs import Epoch, Examples
from clip_export.training.loop import Training, train_head
from clip_export.training.objective import Objective
from clip_export.training.options import TrainingOptions
from clip_toolkit.spec.tasks import SINGLE_LABEL

PULLS = (100.0, 10.0, 1.0)
"""From hardly leaving the words, for those that the text tower knows well, to leaving them where images say so."""


class Attempt(NamedTuple):
    """A training, and its validation loss at the best temperature, which a head gets in the end."""

    training: Training
    loss: float


def train_from_words(
    words: ZeroShot,
    train: Examples,
    validation: Examples,
    options: TrainingOptions,
    report: Callable[[Epoch], None] = lambda _: None,
    *,
    task: str = SINGLE_LABEL,
    pulls: Sequence[float] = PULLS,
) -> list[Attempt]:
    """Train a linear head from the zero-shot weights with every pull, and one from random weights.

    Words that the text tower does not know may be a bad start: validation images decide.

    Args:
        words: the labels' directions.
        train: examples to learn from, of projected features.
        validation: examples to choose by.
        options: how to train each; the head is linear and reads features of norm 1, whatever they say.
        report: called after every epoch of each.
        task: ``single-label`` or ``multi-label``.
        pulls: each as in `clip_export.training.loop.train_head`, of directions, whose norm is 1.

    Returns:
        That of the lowest loss first: without a temperature, over-confidence would count for more than mistakes. The
        heads take plain features and normalise them.

    Raises:
        DatasetError: as `clip_export.training.loop.train_head`.
    """
    options = replace(options, hidden_dim=(), standardise=False, feature_norm=None)
    train_scaled, validation_scaled = (_scaled(examples, words.scale) for examples in (train, validation))
    fit = partial(train_head, train_scaled, validation_scaled, len(words.directions), options, report, task=task)
    start = _start(words)
    trained = []
    for pull in pulls:
        training = fit(start=start, pull=pull)
        trained.append(replace(training, start=f"zero-shot, pull {pull:g}"))
    trained.append(fit())  # the last: words win a draw
    plain = [replace(training, head=_plain(training.head, words.scale)) for training in trained]
    attempts = [Attempt(training, calibrated_loss(training.head, validation, task)) for training in plain]
    return sorted(attempts, key=lambda attempt: attempt.loss)


def calibrated_loss(head: VLMtoMLP, validation: Examples, task: str) -> float:
    """Compute the validation loss at the temperature that suits the head best."""
    logits = head(validation.features).detach()
    temperature = fit_temperature(logits, validation.targets, task)
    objective = Objective.fitted(task, validation.targets, logits.shape[1], TrainingOptions())
    return objective.loss(logits / temperature, validation.targets).item()


def _scaled(examples: Examples, scale: float) -> Examples:
    """Features on which the directions are the weights, so that one pull and one rate suit every encoder."""
    return examples._replace(features=functional.normalize(examples.features, dim=-1) * scale)


def _start(words: ZeroShot) -> VLMtoMLP:
    outputs, dim = words.directions.shape
    head = VLMtoMLP(dim, (), outputs, dropout=0.0)
    head.load_state_dict({"layers.0.weight": words.directions, "layers.0.bias": torch.full((outputs,), words.bias)})
    return head


def _plain(head: VLMtoMLP, scale: float) -> VLMtoMLP:
    """Fold the scale into the head's weights and the norm into the head."""
    return linear_head(head.last.weight.detach() * scale, head.last.bias.detach())
