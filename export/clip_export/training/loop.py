"""Training a head on features, as the course teaches it, with what a real data set needs around that."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from clip_export.heads.mlp import VLMtoMLP
from clip_export.training.epochs import Epoch, Examples, latest, lowest_loss
from clip_export.training.objective import Objective
from clip_export.training.options import TrainingOptions
from clip_export.training.run import Pace, Run
from clip_export.training.scaling import Scaling
from clip_export.training.state import TrainingState
from clip_export.training.updates import make_updates
from clip_toolkit.errors import DatasetError
from clip_toolkit.spec.tasks import SINGLE_LABEL

_CHUNK = 8192  # features that are judged at a time


@dataclass(frozen=True)
class Training:
    """A trained head and how it came about.

    Attributes:
        head: in evaluation mode.
        history: every epoch.
        best: the epoch that the head is of.
        start: where its weights began, in words.
    """

    head: VLMtoMLP
    history: tuple[Epoch, ...]
    best: Epoch
    start: str = "random"


def train_head(
    train: Examples,
    validation: Examples,
    outputs: int,
    options: TrainingOptions | None = None,
    report: Callable[[Epoch], None] = lambda _: None,
    *,
    task: str = SINGLE_LABEL,
    start: VLMtoMLP | None = None,
    pull: float = 0.0,
    resume: TrainingState | None = None,
    keep: Callable[[TrainingState], None] | None = None,
) -> Training:
    """Train a head on features. The same arguments give the same head, bit for bit, on the same machine.

    Args:
        train: examples to learn from.
        validation: examples to choose the epoch by, unless the options keep the last one.
        outputs: number of classes or values.
        options: how to train; the defaults are the course's.
        report: called after every epoch.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        start: the head to begin with, in place of a random one; it is not changed.
        pull: strength of a pull back to the start: the loss grows by ``pull`` times the squared distance of each
            output's weights from where they began, on average over the outputs (L2-SP: Li et al. 2018,
            https://arxiv.org/abs/1802.01483).
        resume: where an earlier call with the same arguments had got to; the head becomes what it would have been.
        keep: called with the state after every epoch, for a later ``resume``.

    Raises:
        DatasetError: no examples, or the loss is not a number; the message names the batch.
    """
    if not len(train.features) or not len(validation.features):
        raise DatasetError("training: there are no examples to learn from, or none to measure on")
    options = options or TrainingOptions()
    objective = Objective.fitted(task, train.targets, outputs, options)
    scaling = Scaling.fitted(train.features) if options.standardise else None
    scaled = [
        Examples(scaling.apply(item.features) if scaling else item.features, objective.scaled(item.targets))
        for item in (train, validation)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        head = copy.deepcopy(start) or _fresh(train, outputs, options)
        head.requires_grad_(True)
        penalty = _pull(head, pull) if pull else None
        run = Run(head, objective, make_updates(head.parameters(), options), _pace(options), penalty=penalty)
        if resume is not None:
            run.restore(resume)
        while not run.finished():
            report(run.epoch(*scaled))
            if keep is not None:
                keep(run.state())
    best = run.finish()
    objective.unscale(head)
    if scaling is not None:
        scaling.fold(head)
    return Training(head, tuple(run.history), best)


def _fresh(train: Examples, outputs: int, options: TrainingOptions) -> VLMtoMLP:
    return VLMtoMLP(
        train.features.shape[1],
        options.hidden_dim,
        outputs,
        options.activation,
        options.dropout,
        feature_norm=options.normalises,
    )


def _pull(head: VLMtoMLP, strength: float) -> Callable[[], Tensor]:
    """Make the cost of leaving the present weights: their squared distance, averaged over the outputs."""
    began = [parameter.detach().clone() for parameter in head.parameters()]

    def penalty() -> Tensor:
        squares = [((now - then) ** 2).sum() for now, then in zip(head.parameters(), began, strict=True)]
        return strength * torch.stack(squares).sum() / head.spec.layers[-1]

    return penalty


def _pace(options: TrainingOptions) -> Pace:
    choose = latest if options.keep_last else lowest_loss
    return Pace(options.epochs, options.batch_size, _CHUNK, options.patience, choose)
