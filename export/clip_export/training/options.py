"""How a head is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("step", "cosine", "none")


@dataclass(frozen=True)
class TrainingOptions:
    """How a head is trained. The defaults are the course's.

    Attributes:
        epochs: passes over the training features, at most.
        learning_rate: at the start.
        batch_size: features per step.
        optimizer: one of `OPTIMIZERS`.
        weight_decay: of the optimizer: L2 penalty for Adam, decoupled for AdamW.
        schedule: ``step`` (StepLR), ``cosine`` (to zero over all epochs) or ``none``.
        step_size: epochs after which StepLR multiplies the learning rate by ``gamma``.
        gamma: that factor.
        standardise: learn on features of mean 0 and deviation 1; the head then takes plain ones all the same.
        hidden_dim: channels of each hidden layer; none for a linear head.
        activation: one of `clip_export.heads.mlp.ACTIVATIONS`.
        dropout: probability after each hidden layer.
        patience: stop after so many epochs without a lower validation loss, and return to the best; None: never.
        class_weights: ``none`` or ``balanced``: the loss of an example weighs inversely to how frequent its label is.
        label_smoothing: share of certainty taken from the right label, 0 to below 1.
        seed: of initial weights, order and dropout.
    """

    epochs: int = 100
    learning_rate: float = 1e-4
    batch_size: int = 32
    optimizer: str = "adam"
    weight_decay: float = 0.0
    schedule: str = "step"
    step_size: int = 40
    gamma: float = 0.5
    standardise: bool = False
    hidden_dim: int | tuple[int, ...] = 256
    activation: str = "relu"
    dropout: float = 0.1
    patience: int | None = None
    class_weights: str = "none"
    label_smoothing: float = 0.0
    seed: int = 0

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of ``parameters``."""
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.optimizer]
        return kind(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)

    def make_scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of its learning rate; one step an epoch."""
        if self.schedule == "cosine":
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)
        gamma = self.gamma if self.schedule == "step" else 1.0
        return torch.optim.lr_scheduler.StepLR(optimizer, self.step_size, gamma)
