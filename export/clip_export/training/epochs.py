"""What a training learns from, and what each of its epochs reached."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Inputs(Protocol):
    """What a model takes, by number: a tensor, or rows that stay on disk until they are asked for."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        """Return some of them, float32 ``[count, ...]``."""


class Examples(NamedTuple):
    """Features float32 ``[n, dim]`` and targets, as in `clip_toolkit.data.dataset.Dataset`.

    While an encoder is fine-tuned, the features are `Inputs`: hidden states ``[n, tokens, width]``.
    """

    features: Tensor
    targets: Tensor


class Epoch(NamedTuple):
    """What an epoch reached.

    Attributes:
        number: from 1; of fine-tuning from 0, which is the state before.
        loss: mean training loss, with dropout and smoothing; of epoch 0 without.
        train_score: share of right decisions on the training examples, 0 to 1; for a regression R squared.
        val_loss: on the validation examples, without dropout, smoothing or class weights.
        val_score: the score on them.
    """

    number: int
    loss: float
    train_score: float
    val_loss: float
    val_score: float


def latest(history: list[Epoch]) -> Epoch:
    """Return the last epoch."""
    return history[-1]


def lowest_loss(history: list[Epoch]) -> Epoch:
    """Return the epoch of the lowest validation loss."""
    return min(history, key=lambda epoch: epoch.val_loss)


def improvement(history: list[Epoch]) -> Epoch:
    """Return the epoch of the lowest validation loss whose score is not below the first's; else the first.

    A loss that falls while more decisions are wrong is no reason to replace what one has.
    """
    first = history[0]
    better = [epoch for epoch in history if epoch.val_score >= first.val_score and epoch.val_loss < first.val_loss]
    return lowest_loss(better) if better else first


def damaged_example(inputs: Inputs, batch: Tensor) -> int | None:
    """Find an example of the batch whose input is not finite, or None."""
    finite = torch.isfinite(inputs[batch]).flatten(1).all(1)
    return None if finite.all() else int(batch[~finite][0])
