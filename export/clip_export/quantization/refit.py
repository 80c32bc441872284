"""Refit: the head learns the encoder that ships.

It is trained to answer, on the quantized encoder's features, what it used to answer on the exact ones (distillation,
Hinton et al. 2015, https://arxiv.org/abs/1503.02531), from the weights it has: no label is needed, and a head that was
good stays so.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from clip_export.heads import VLMtoMLP

_STEPS = 400
_RATES = (1e-4, 1e-3)  # of Adam
_HELD_OUT = 5  # every so many-th image decides which of the trained heads is kept, if any


def refit_head(head: VLMtoMLP, exact: Tensor, quantized: Tensor) -> VLMtoMLP:
    """Train a head on the features of a quantized encoder.

    Args:
        head: as it was trained, in evaluation mode; it is not changed.
        exact: float32 ``[images, dim]``, features of the exact encoder.
        quantized: the same images' features of the quantized one.

    Returns:
        The head whose probabilities on held-out images come closest to the original's; that may be the original.
    """
    judged = torch.arange(len(exact)) % _HELD_OUT == 0
    with torch.no_grad():
        wanted = torch.softmax(head(exact), dim=-1)
    heads = [head, *(_trained(head, quantized[~judged], wanted[~judged], rate) for rate in _RATES)]
    with torch.no_grad():
        losses = [float(_loss(candidate, quantized[judged], wanted[judged])) for candidate in heads]
    return heads[losses.index(min(losses))]


def _trained(head: VLMtoMLP, features: Tensor, wanted: Tensor, rate: float) -> VLMtoMLP:
    trained = copy.deepcopy(head).eval().requires_grad_(True)
    optimizer = torch.optim.Adam(trained.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        _loss(trained, features, wanted).backward()
        optimizer.step()
        scheduler.step()
    return trained.requires_grad_(False)


def _loss(head: nn.Module, features: Tensor, wanted: Tensor) -> Tensor:
    return nn.functional.cross_entropy(head(features), wanted)
