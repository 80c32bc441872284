"""Where a training has got to: enough to go on as if it had never stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class TrainingState:
    """The state after an epoch, a copy that later epochs leave alone.

    Attributes:
        head: the head's state_dict.
        best: that of the best epoch so far.
        optimizer: the optimizer's.
        scheduler: the scheduler's.
        generator: of PyTorch's random numbers, uint8.
        history: the epochs so far, each as the fields of `clip_export.training.loop.Epoch`.
    """

    head: dict[str, Tensor]
    best: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    generator: Tensor
    history: list[tuple[Any, ...]]
