"""How the last blocks of an encoder are fine-tuned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from clip_export.training.options import TrainingOptions
from clip_export.training.updates import Updates
from clip_toolkit.errors import DeviceError


@dataclass(frozen=True)
class FinetuningOptions:
    """How the last blocks of an encoder learn. What concerns the head is in `TrainingOptions`.

    Attributes:
        blocks: how many of the last blocks learn.
        epochs: passes over the training images, at most.
        learning_rate: of the encoder at the start; it falls to zero along a cosine.
        weight_decay: of the encoder's matrices, decoupled (AdamW); biases and norms are left alone.
        clip_norm: largest norm of all gradients of an update together.
        accumulate: batches whose gradients are gathered for an update: the same update as for one batch as large as
            all of them, with the memory of one.
        precision: one of `clip_export.training.updates.PRECISIONS`; others than ``float32`` need a GPU.
        device: a PyTorch device.
    """

    blocks: int
    epochs: int = 10
    learning_rate: float = 3e-5
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    accumulate: int = 1
    precision: str = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse a precision that the device is not good for.

        Raises:
            DeviceError: mixed precision without a GPU.
        """
        if self.precision != "float32" and torch.device(self.device).type != "cuda":
            raise DeviceError(
                f"precision {self.precision}: expected a CUDA device, got {self.device}. Leave --precision out."
            )

    def make_updates(self, encoder: nn.Module, head: nn.Module, head_options: TrainingOptions) -> Updates:
        """The updates of the encoder's parameters that learn, and of the head's, each with its own rate and decay."""
        groups = [
            *self._encoder_groups(encoder),
            {
                "params": list(head.parameters()),
                "lr": head_options.learning_rate,
                "weight_decay": head_options.weight_decay,
            },
        ]
        optimizer = torch.optim.AdamW(groups)
        return Updates(
            optimizer,
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs),
            batches=self.accumulate,
            clip_norm=self.clip_norm,
            precision=self.precision,
            device=self.device,
        )

    def _encoder_groups(self, encoder: nn.Module) -> Iterator[dict[str, Any]]:
        parameters = list(encoder.parameters())
        matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
        others = [parameter for parameter in parameters if parameter.ndim < 2]
        yield {"params": matrices, "lr": self.learning_rate, "weight_decay": self.weight_decay}
        yield {"params": others, "lr": self.learning_rate, "weight_decay": 0.0}
