"""Few-shot: train the encoder's visual projection towards the labels' words, which stay what they are.

ProLIP (Fahes et al. 2024, https://arxiv.org/abs/2410.05270): full-batch Adam on features from before the projection,
held to the pretrained weights by lambda times their squared distance, lambda = 1 / shots.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from clip_export.encoders.feature_names import POOLED
from clip_export.encoders.image import Encoder
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.zero_shot import ZeroShot, words_head
from clip_export.training.epochs import Epoch, Examples
from clip_export.training.few_shot import Attempt, calibrated_loss
from clip_export.training.loop import Training
from clip_export.training.objective import Objective, score
from clip_export.training.options import TrainingOptions
from clip_toolkit.errors import EncoderError
from clip_toolkit.spec.tasks import SINGLE_LABEL

START = "zero-shot, trained projection"
EPOCHS = 300
RATE = 1e-3


class ProjectionAttempt(NamedTuple):
    """A trained projection, and the words behind it as a head."""

    attempt: Attempt
    projection: nn.Linear


def before_projection(encoder: Encoder) -> Encoder:
    """Return the encoder whose feature the projection of this one reads.

    Raises:
        EncoderError: it has no projection, or one of another feature than the pooled one.
    """
    if encoder.projection is None or encoder.reads_first_token:
        raise EncoderError(
            f"{encoder.id}: --train-projection needs an encoder with a linear projection of its pooled feature, as "
            f"CLIP has, and {encoder.family.name} has none. Leave out --train-projection."
        )
    return replace(encoder, feature=POOLED, projection=None)


@torch.no_grad()
def project(projection: nn.Linear, examples: Examples) -> Examples:
    """Project pooled features ``[n, width]`` to ``[n, dim]``."""
    return examples._replace(features=projection(examples.features))


def train_projection(
    words: ZeroShot,
    projection: nn.Linear,
    train: Examples,
    validation: Examples,
    options: TrainingOptions,
    *,
    report: Callable[[Epoch], None] = lambda _: None,
    shots: float,
    rate: float = RATE,
) -> ProjectionAttempt:
    """Train a copy of a projection so that the words tell the examples apart. Nothing is random in it.

    Args:
        words: the labels' directions, of a softmax.
        projection: to begin with; it is not changed.
        train: pooled features float32 ``[n, width]`` to learn from.
        validation: likewise, to compare the result with other starts by; the epochs are fixed, as in the paper.
        options: of them class weights and label smoothing count.
        report: called after every epoch.
        shots: images of each label that are learnt from, on average.
        rate: of Adam.
    """
    head, learnt = words_head(words), copy.deepcopy(projection).requires_grad_(True)
    objective = Objective.fitted(SINGLE_LABEL, train.targets, len(words.directions), options)
    began = [weight.detach().clone() for weight in learnt.parameters()]
    optimizer = torch.optim.Adam(learnt.parameters(), rate)
    history: list[Epoch] = []
    for number in range(1, EPOCHS + 1):
        moved = zip(learnt.parameters(), began, strict=True)
        loss = objective.loss(head(learnt(train.features)), train.targets)
        (loss + sum((now - then).square().sum() for now, then in moved) / shots).backward()
        optimizer.step()
        optimizer.zero_grad()
        history.append(_epoch(number, loss.item(), head, *(project(learnt, side) for side in (train, validation))))
        report(history[-1])
    learnt.requires_grad_(False)
    training = Training(head, tuple(history), history[-1], START)
    chosen_by = project(learnt, validation)
    return ProjectionAttempt(Attempt(training, calibrated_loss(head, chosen_by, SINGLE_LABEL)), learnt)


@torch.no_grad()
def _epoch(number: int, loss: float, head: VLMtoMLP, train: Examples, validation: Examples) -> Epoch:
    plain = Objective.fitted(SINGLE_LABEL, validation.targets, head.last.out_features, TrainingOptions())
    asked = head(validation.features)
    return Epoch(
        number,
        loss,
        score(head(train.features), train.targets, SINGLE_LABEL),
        plain.loss(asked, validation.targets).item(),
        score(asked, validation.targets, SINGLE_LABEL),
    )
