"""Where a training has got to: enough to go on as if it had never stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainingState:
    """The state after an epoch, a copy on the CPU that later epochs leave alone.

    Attributes:
        model: the state_dict of what learns.
        best: that of the best epoch so far.
        updates: of optimizer, schedule and gradient scaler.
        generators: of PyTorch's random numbers, uint8: the CPU's, and behind it a GPU's where one is used.
        history: the epochs so far, each as the fields of `clip_export.training.epochs.Epoch`.
    """

    model: dict[str, Tensor]
    best: dict[str, Tensor]
    updates: dict[str, Any]
    generators: list[Tensor]
    history: list[tuple[Any, ...]]


def copied(value: Any) -> Any:
    """Copy nested containers, their tensors to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value


def generators(device: str) -> list[Tensor]:
    """Return the states of the generators of random numbers that a training on a device draws from."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(gpu) for gpu in gpus(device))]


def restore_generators(states: list[Tensor], device: str) -> None:
    """Go back to states of `generators`."""
    torch.set_rng_state(states[0])
    for state, gpu in zip(states[1:], gpus(device), strict=True):
        torch.cuda.set_rng_state(state, gpu)


def gpus(device: str) -> list[torch.device]:
    """Return the device, if it is a GPU with a generator of its own."""
    used = torch.device(device)
    return [used] if used.type == "cuda" else []
