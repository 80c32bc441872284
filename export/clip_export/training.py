"""Training a head on features: Adam, cross entropy and a step schedule, as the course teaches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clip_export.heads import VLMtoMLP
from clip_toolkit.errors import DatasetError


@dataclass(frozen=True)
class TrainingOptions:
    """How a head is trained.

    Attributes:
        epochs: passes over the training features.
        learning_rate: of Adam, at the start.
        batch_size: features per step.
        step_size: epochs after which StepLR multiplies the learning rate by ``gamma``.
        gamma: that factor.
        hidden_dim: channels of the hidden layer.
        dropout: probability after it.
        seed: of initial weights, order and dropout.
    """

    epochs: int = 100
    learning_rate: float = 1e-4
    batch_size: int = 32
    step_size: int = 40
    gamma: float = 0.5
    hidden_dim: int = 256
    dropout: float = 0.1
    seed: int = 0


class Examples(NamedTuple):
    """Features float32 ``[n, dim]`` and class indices int64 ``[n]``."""

    features: Tensor
    targets: Tensor


class Epoch(NamedTuple):
    """What an epoch reached: number from 1, mean training loss, accuracies 0 to 1."""

    number: int
    loss: float
    train_accuracy: float
    val_accuracy: float


def train_head(
    train: Examples,
    validation: Examples,
    classes: int,
    options: TrainingOptions = TrainingOptions(),
    report: Callable[[Epoch], None] = lambda _: None,
) -> tuple[VLMtoMLP, Epoch]:
    """Train a head on features.

    Args:
        train: examples to learn from.
        validation: examples to measure on; they do not influence the head.
        classes: number of classes.
        options: how to train.
        report: called after every epoch.

    Returns:
        The head in evaluation mode, and its last epoch.

    Raises:
        DatasetError: no training examples, or the loss is not a number.
    """
    if not len(train.features):
        raise DatasetError("training: there are no examples to learn from")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        head = VLMtoMLP(train.features.shape[1], options.hidden_dim, classes, dropout=options.dropout)
        optimizer = torch.optim.Adam(head.parameters(), lr=options.learning_rate)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, options.step_size, options.gamma)
        for number in range(1, options.epochs + 1):
            loss = _epoch(head, optimizer, train, options.batch_size)
            scheduler.step()
            epoch = Epoch(number, loss, accuracy(head, train), accuracy(head, validation))
            report(epoch)
    return head.eval(), epoch


def accuracy(head: nn.Module, examples: Examples) -> float:
    """Share of examples, 0 to 1, whose largest logit is the right one."""
    head.eval()
    with torch.no_grad():
        return float((head(examples.features).argmax(1) == examples.targets).float().mean())


def _epoch(head: nn.Module, optimizer: torch.optim.Optimizer, train: Examples, batch_size: int) -> float:
    head.train()
    total = 0.0
    for batch in torch.randperm(len(train.features)).split(batch_size):
        loss = nn.functional.cross_entropy(head(train.features[batch]), train.targets[batch])
        if not torch.isfinite(loss):
            raise DatasetError(f"training: the loss became {loss.item()}. Lower the learning rate.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    return total / len(train.features)
