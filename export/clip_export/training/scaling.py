"""Features with mean 0 and deviation 1 while a head learns, and nothing left of that afterwards."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clip_export.heads.mlp import VLMtoMLP


class Scaling(NamedTuple):
    """Mean and standard deviation of each channel of the training features, float32 ``[dim]``."""

    mean: Tensor
    std: Tensor

    @classmethod
    def fitted(cls, features: Tensor) -> Scaling:
        """Fit the scaling of features ``[n, dim]``; a channel that never changes is only shifted."""
        std = features.std(0, correction=0)
        return cls(features.mean(0), torch.where(std > 0, std, torch.ones_like(std)))

    def apply(self, features: Tensor) -> Tensor:
        """Scaled features, ``[n, dim]``."""
        return (features - self.mean) / self.std

    @torch.no_grad()
    def fold(self, head: VLMtoMLP) -> None:
        """Let a head that learnt on scaled features take plain ones: its first layer does the scaling."""
        first = head.first
        first.weight.div_(self.std)
        first.bias.sub_(first.weight @ self.mean)
