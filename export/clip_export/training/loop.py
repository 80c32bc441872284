"""Training a head on features, as the course teaches it, with what a real data set needs around that."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from clip_export.heads import VLMtoMLP
from clip_export.training.objective import Objective
from clip_export.training.options import TrainingOptions
from clip_export.training.scaling import Scaling
from clip_export.training.state import TrainingState
from clip_toolkit.errors import DatasetError
from clip_toolkit.tasks import SINGLE_LABEL

_CHUNK = 8192  # features that are judged at a time, so that memory stays flat


class Examples(NamedTuple):
    """Features float32 ``[n, dim]`` and targets, as in `clip_export.training.dataset.Dataset`."""

    features: Tensor
    targets: Tensor


class Epoch(NamedTuple):
    """What an epoch reached.

    Attributes:
        number: from 1.
        loss: mean training loss, with dropout and smoothing.
        train_score: share of right decisions on the training examples, 0 to 1; for a regression R squared.
        val_loss: on the validation examples, without dropout, smoothing or class weights.
        val_score: the score on them.
    """

    number: int
    loss: float
    train_score: float
    val_loss: float
    val_score: float


@dataclass(frozen=True)
class Training:
    """A trained head and how it came about.

    Attributes:
        head: in evaluation mode.
        history: every epoch.
        best: the epoch that the head is of: the last one, or with early stopping that of the lowest validation loss.
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
        validation: examples to measure on; only early stopping lets them influence the head.
        outputs: number of classes or values.
        options: how to train; the defaults are the course's.
        report: called after every epoch.
        task: one of `clip_toolkit.tasks.TASKS`.
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
        head = copy.deepcopy(start) or VLMtoMLP(
            train.features.shape[1], options.hidden_dim, outputs, options.activation, options.dropout
        )
        run = _Run(head.requires_grad_(True), options, objective, pull)
        if resume is not None:
            run.restore(resume)
        while not run.finished():
            report(run.epoch(*scaled))
            if keep is not None:
                keep(run.state())
    training = run.result()
    if scaling is not None:
        scaling.fold(training.head)
    return training


class _Run:
    """A training under way: everything that changes from epoch to epoch."""

    def __init__(self, head: VLMtoMLP, options: TrainingOptions, objective: Objective, pull: float) -> None:
        self.head, self.options, self.objective, self.pull = head, options, objective, pull
        self.began = [parameter.detach().clone() for parameter in head.parameters()]
        self.optimizer = options.make_optimizer(head.parameters())
        self.scheduler = options.make_scheduler(self.optimizer)
        self.history: list[Epoch] = []
        self.best = copy.deepcopy(head.state_dict())

    def finished(self) -> bool:
        patience = self.options.patience
        impatient = patience is not None and bool(self.history) and len(self.history) - self._best().number >= patience
        return impatient or len(self.history) >= self.options.epochs

    def epoch(self, train: Examples, validation: Examples) -> Epoch:
        number = len(self.history) + 1
        loss = self._learn(train, number)
        self.scheduler.step()
        _, train_score = self.objective.judge(self.head, train, _CHUNK)
        val_loss, val_score = self.objective.judge(self.head, validation, _CHUNK)
        self.history.append(Epoch(number, loss, train_score, val_loss, val_score))
        if self._best().number == number:
            self.best = copy.deepcopy(self.head.state_dict())
        return self.history[-1]

    def _learn(self, train: Examples, number: int) -> float:
        self.head.train()
        total = 0.0
        for step, batch in enumerate(torch.randperm(len(train.features)).split(self.options.batch_size), 1):
            loss = self.objective.loss(self.head(train.features[batch]), train.targets[batch])
            if self.pull:
                loss = loss + self.pull * self._distance()
            if not torch.isfinite(loss):
                raise DatasetError(_named(loss, train, batch, f"epoch {number}, batch {step}"))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(batch)
        return total / len(train.features)

    def _distance(self) -> Tensor:
        """Squared, from where the weights began, on average over the outputs."""
        pairs = zip(self.head.parameters(), self.began, strict=True)
        squares = [((now - began) ** 2).sum() for now, began in pairs]
        return torch.stack(squares).sum() / self.head.spec.layers[-1]

    def _best(self) -> Epoch:
        if self.options.patience is None:
            return self.history[-1]
        return min(self.history, key=lambda epoch: epoch.val_loss)

    def state(self) -> TrainingState:
        live = TrainingState(
            head=self.head.state_dict(),
            best=self.best,
            optimizer=self.optimizer.state_dict(),
            scheduler=self.scheduler.state_dict(),
            generator=torch.get_rng_state(),
            history=[tuple(epoch) for epoch in self.history],
        )
        return copy.deepcopy(live)  # the next epoch, which may be broken off half way, writes into these tensors

    def restore(self, state: TrainingState) -> None:
        self.head.load_state_dict(state.head)
        self.best = copy.deepcopy(state.best)
        self.optimizer.load_state_dict(state.optimizer)
        self.scheduler.load_state_dict(state.scheduler)
        torch.set_rng_state(state.generator)
        self.history = [Epoch(*values) for values in state.history]

    def result(self) -> Training:
        self.head.load_state_dict(self.best)
        self.objective.unscale(self.head)
        return Training(self.head.eval(), tuple(self.history), self._best())


def _named(loss: Tensor, train: Examples, batch: Tensor, where: str) -> str:
    damaged = [index for index in batch.tolist() if not torch.isfinite(train.features[index]).all()]
    if damaged:
        return f"training: {where}: the features of example {damaged[0]} are not finite. The encoder is damaged."
    return f"training: {where}: the loss became {loss.item()}. Lower the learning rate."
