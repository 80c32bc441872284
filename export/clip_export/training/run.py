"""A training under way, whatever learns: everything that changes from epoch to epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clip_export.training.epochs import Epoch, Examples, damaged_example
from clip_export.training.objective import Objective
from clip_export.training.state import TrainingState, copied, generators, restore_generators
from clip_export.training.updates import Updates
from clip_toolkit.errors import DatasetError


@dataclass(frozen=True)
class Pace:
    """How a run goes through its examples.

    Attributes:
        epochs: passes over them, at most.
        batch_size: examples at a time.
        judged: examples at a time where nothing is learnt, so that memory stays flat.
        patience: stop after so many epochs behind the chosen one, or None.
        choose: which epoch of a history the result is of.
    """

    epochs: int
    batch_size: int
    judged: int
    patience: int | None
    choose: Callable[[list[Epoch]], Epoch]


class Run:
    """A model, what it learns by, and how far it has got.

    Attributes:
        model: from the features of `Examples` to logits, on its device.
        history: every epoch so far.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        updates: Updates,
        pace: Pace,
        *,
        device: str = "cpu",
        penalty: Callable[[], Tensor] | None = None,
    ) -> None:
        """Begin before the first epoch; the ``penalty``, if there is one, is added to the loss of every batch."""
        self.penalty = penalty
        self.model, self.objective, self.updates = model, objective, updates
        self.pace, self.device = pace, device
        self.history: list[Epoch] = []
        self._best = copied(model.state_dict())

    @property
    def best(self) -> Epoch:
        """The epoch that the result is of, so far."""
        return self.pace.choose(self.history)

    def finished(self) -> bool:
        """Whether all epochs are done, or patience is at its end."""
        if not self.history:
            return False
        number, patience = self.history[-1].number, self.pace.patience
        return number >= self.pace.epochs or (patience is not None and number - self.best.number >= patience)

    def judge_start(self, train: Examples, validation: Examples) -> Epoch:
        """Note as epoch 0 how good the model is already."""
        loss, train_score = self._judge(train)
        self.history.append(Epoch(0, loss, train_score, *self._judge(validation)))
        return self.history[-1]

    def epoch(self, train: Examples, validation: Examples) -> Epoch:
        """Learn from all examples once, and judge.

        Raises:
            DatasetError: the loss is not a number; the message names the batch.
        """
        number = self.history[-1].number + 1 if self.history else 1
        loss = self._learn(train, number)
        self.updates.end_epoch()
        _, train_score = self._judge(train)
        self.history.append(Epoch(number, loss, train_score, *self._judge(validation)))
        if self.best.number == number:
            self._best = copied(self.model.state_dict())
        return self.history[-1]

    def _learn(self, train: Examples, number: int) -> float:
        self.model.train()
        total, seen, step = 0.0, 0.0, 0
        for update in torch.randperm(len(train.features)).split(self.pace.batch_size * self.updates.batches):
            whole = self.objective.mass(train.targets[update])
            for batch in update.split(self.pace.batch_size):
                step += 1
                loss = self._loss(train, batch)
                if not torch.isfinite(loss):
                    raise DatasetError(_named(loss, train, batch, f"epoch {number}, batch {step}"))
                mass = self.objective.mass(train.targets[batch])
                self.updates.gather(loss * (mass / whole))
                total += loss.item() * mass
            self.updates.apply()
            seen += whole
        return total / seen

    def _loss(self, train: Examples, batch: Tensor) -> Tensor:
        features, targets = train.features[batch].to(self.device), train.targets[batch].to(self.device)
        with self.updates.autocast():
            outputs = self.model(features)
        loss = self.objective.loss(outputs.float(), targets)
        return loss if self.penalty is None else loss + self.penalty()

    def _judge(self, examples: Examples) -> tuple[float, float]:
        return self.objective.judge(self.model, examples, self.pace.judged, self.device)

    def state(self) -> TrainingState:
        """Where the run is, for `restore`."""
        return TrainingState(
            model=copied(self.model.state_dict()),
            best=self._best,
            updates=copied(self.updates.state()),
            generators=generators(self.device),
            history=[tuple(epoch) for epoch in self.history],
        )

    def restore(self, state: TrainingState) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state.model)
        self._best = state.best
        self.updates.restore(copied(state.updates))
        restore_generators(state.generators, self.device)
        self.history = [Epoch(*values) for values in state.history]

    def finish(self) -> Epoch:
        """Give the model the weights of the best epoch, and return that."""
        self.model.load_state_dict(self._best)
        self.model.eval()
        return self.best


def _named(loss: Tensor, train: Examples, batch: Tensor, where: str) -> str:
    damaged = damaged_example(train.features, batch)
    if damaged is not None:
        return f"training: {where}: the features of example {damaged} are not finite. The encoder is damaged."
    return f"training: {where}: the loss became {loss.item()}. Lower the learning rate."
