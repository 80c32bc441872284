"""Refit: the head learns the encoder that ships.

It is trained to answer, on the quantized encoder's features, what it used to answer on the exact ones (distillation,
Hinton et al. 2015, https://arxiv.org/abs/1503.02531), from the weights it has: no label is needed, and a head that was
good stays so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional

from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.outputs import probabilities
from clip_export.quantization.evidence.feeds import Feeds
from clip_export.quantization.layers.feature import head_input_name
from clip_export.quantization.ranges import run, with_outputs
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

_STEPS = 400
_RATES = (1e-4, 1e-3)  # of Adam
Loss = Callable[[Tensor, Tensor], Tensor]
_LOSSES: dict[str, Loss] = {
    SINGLE_LABEL: functional.cross_entropy,
    MULTI_LABEL: functional.binary_cross_entropy_with_logits,
    REGRESSION: functional.mse_loss,
}
_HELD_OUT = 5  # every so many-th image decides which of the trained heads is kept, if any


def head_features(model: onnx.ModelProto, feeds: Feeds) -> Tensor:
    """Return what the head of a network reads, float32 ``[images, dim]``."""
    name = head_input_name(model)
    return torch.from_numpy(np.concatenate([values for (values,) in run(with_outputs(model, [name]), feeds, [name])]))


def refit_head(head: VLMtoMLP, exact: Tensor, quantized: Tensor, task: str = SINGLE_LABEL) -> VLMtoMLP:
    """Train a head on the features of a quantized encoder.

    Args:
        head: as it was trained, in evaluation mode; it is not changed.
        exact: float32 ``[images, dim]``, features of the exact encoder.
        quantized: the same images' features of the quantized one.
        task: one of `clip_toolkit.spec.tasks.TASKS`.

    Returns:
        The head whose answers on held-out images come closest to the original's; that may be the original.
    """
    judged = torch.arange(len(exact)) % _HELD_OUT == 0
    with torch.no_grad():
        wanted = head(exact) if task == REGRESSION else probabilities(head(exact), task)
    loss = _LOSSES[task]
    heads = [head, *(_trained(head, quantized[~judged], wanted[~judged], rate, loss) for rate in _RATES)]
    with torch.no_grad():
        losses = [float(loss(candidate(quantized[judged]), wanted[judged])) for candidate in heads]
    return heads[losses.index(min(losses))]


def _trained(head: VLMtoMLP, features: Tensor, wanted: Tensor, rate: float, loss: Loss) -> VLMtoMLP:
    trained = copy.deepcopy(head).eval().requires_grad_(True)
    optimizer = torch.optim.Adam(trained.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        loss(trained(features), wanted).backward()
        optimizer.step()
        scheduler.step()
    return trained.requires_grad_(False)
