"""From losses to new weights: one update for one or several batches, clipped, in mixed precision on a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from clip_export.training.options import TrainingOptions

_DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def make_updates(parameters: Iterable[nn.Parameter], options: TrainingOptions) -> Updates:
    """Make the updates of a head: its optimizer, and the schedule of the learning rate, one step an epoch."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.optimizer]
    optimizer = kind(parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
    if options.schedule == "cosine":
        return Updates(optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs))
    gamma = options.gamma if options.schedule == "step" else 1.0
    return Updates(optimizer, torch.optim.lr_scheduler.StepLR(optimizer, options.step_size, gamma))


class Updates:
    """An optimizer and its schedule, and what comes between a loss and them."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        *,
        batches: int = 1,
        clip_norm: float | None = None,
        precision: str = "float32",
        device: str = "cpu",
    ) -> None:
        """Prepare updates.

        Args:
            optimizer: with the parameters that learn.
            scheduler: of its learning rates; one step an epoch.
            batches: whose gradients are gathered for one update.
            clip_norm: largest norm of all gradients together, or None.
            precision: one of `clip_export.training.finetuning.options.PRECISIONS`, of the products of a forward pass.
                Small gradients of float16 are scaled up (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740).
            device: a PyTorch device.
        """
        self.optimizer, self.scheduler = optimizer, scheduler
        self.batches, self.clip_norm = batches, clip_norm
        kind = torch.device(device).type
        self._scaler = torch.amp.GradScaler(kind, enabled=precision == "float16")
        self._autocast = kind, _DTYPES[precision]

    def autocast(self) -> torch.autocast:
        """Return a context in which a forward pass has the precision."""
        kind, dtype = self._autocast
        return torch.autocast(kind, dtype, enabled=dtype is not None)

    def gather(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self._scaler.scale(loss).backward()

    def apply(self) -> None:
        """Change the weights by what was gathered."""
        if self.clip_norm is not None:
            self._scaler.unscale_(self.optimizer)
            learning = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(learning, self.clip_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad()

    def end_epoch(self) -> None:
        """Move the schedule."""
        self.scheduler.step()

    def state(self) -> dict[str, Any]:
        """Everything that changes, for `restore`."""
        parts: dict[str, Any] = {"optimizer": self.optimizer, "scheduler": self.scheduler, "scaler": self._scaler}
        return {name: part.state_dict() for name, part in parts.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a `state`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self._scaler.load_state_dict(state["scaler"])
