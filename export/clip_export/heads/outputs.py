"""What a head's raw outputs mean, by task, and features of unit length."""

from __future__ import annotations

import torch
from torch import Tensor

from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION


def probabilities(logits: Tensor, task: str, temperature: float = 1.0) -> Tensor:
    """Probabilities of logits ``[n, outputs]``, divided by ``temperature`` first.

    Returns:
        The softmax of each row, the sigmoid of each element, or for a regression, which has none, ``[n, 0]``.
    """
    if task == REGRESSION:
        return logits[:, :0]
    scaled = logits if temperature == 1 else logits / temperature
    return torch.sigmoid(scaled) if task == MULTI_LABEL else torch.softmax(scaled, dim=-1)


_LEAST_NORM = 1e-12  # PyTorch's: a row of zeros stays one


def unit_length(x: Tensor) -> Tensor:
    """Rows of L2 norm 1, as ``torch.nn.functional.normalize``, which would leave the norm's expansion in the graph."""
    norm: Tensor = x.norm(dim=-1, keepdim=True)
    return x / norm.clamp_min(_LEAST_NORM)
