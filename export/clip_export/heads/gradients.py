"""The gradient of one of a head's logits in the feature, as operators that ONNX has, too."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.outputs import unit_length

SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": lambda x: (x > 0).float(),
    "GELU": lambda x: (1 + torch.erf(x / math.sqrt(2))) / 2 + x * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    "SiLU": lambda x: torch.sigmoid(x) * (1 + x * (1 - torch.sigmoid(x))),
    "Tanh": lambda x: 1 - torch.tanh(x) ** 2,
    "LeakyReLU": lambda x: torch.where(x > 0, 1.0, 0.01),
    "ELU": lambda x: torch.exp(x.clamp(max=0)),
    "Sigmoid": lambda x: torch.sigmoid(x) * (1 - torch.sigmoid(x)),
}
"""Derivatives of the activations of heads, by their class, with PyTorch's default parameters."""


def head_gradient(head: VLMtoMLP, features: Tensor, gradient: Tensor) -> Tensor:
    """Carry the gradient in the logits, ``[batch, classes]``, back to the features, ``[batch, dim]``."""
    x = unit_length(features) if head.spec.feature_norm else features
    inputs = []
    for layer in head.layers:
        inputs.append(x)
        x = layer(x)
    for layer, read in zip(reversed(head.layers), reversed(inputs), strict=True):
        if isinstance(layer, nn.Linear):
            gradient = gradient @ layer.weight
        elif not isinstance(layer, nn.Dropout):
            gradient = gradient * SLOPES[type(layer).__name__](read)
    if not head.spec.feature_norm:
        return gradient
    unit = inputs[0]
    along = (gradient * unit).sum(1, keepdim=True)
    pulled: Tensor = (gradient - unit * along) / features.norm(dim=1, keepdim=True)
    return pulled
