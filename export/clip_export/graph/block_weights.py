"""Weights of a transformer block: from the names of transformers to those of `clip_export.graph.blocks.Block`.

Each exact rewrite of weights is a function of its own here; those of structure are in `clip_export.graph.blocks`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from clip_export.encoders.families.family import BlockSettings

Weights = dict[str, Tensor]

_FUNCTIONS = {"quick_gelu": "silu"}
"""Activations of a tower that another of `clip_export.graph.operators.ACTIVATIONS` computes, with rewritten weights."""

QUICK_GELU_SLOPE = 1.702
"""Of ``x * sigmoid(1.702 x)``, which OpenAI's CLIP uses: section 2 of arXiv:1606.08415."""


def block_config(settings: BlockSettings) -> dict[str, Any]:
    """Return the sizes of blocks by the names of `clip_export.graph.blocks.BlockConfig`."""
    return asdict(settings) | {"activation": _FUNCTIONS.get(settings.activation, settings.activation)}


def block_weights(layer: Weights, activation: str, one_token: bool) -> Weights:
    """Return the weights of one `Block`.

    Args:
        layer: those of a transformers layer, by the names of CLIP.
        activation: as in `clip_export.encoders.families.family.BlockSettings`.
        one_token: as in `Block`.
    """
    block = _packed(layer)
    if activation == "quick_gelu":
        block |= _folded_slope(block)
    for scale, linear in _SCALES.items():
        if scale in layer:  # of what a residual adds: a factor of every channel
            block |= {
                f"{linear}.weight": block[f"{linear}.weight"] * layer[scale][:, None],
                f"{linear}.bias": block[f"{linear}.bias"] * layer[scale],
            }
    return _query_apart(block) if one_token else block


def named_like_clip(module: nn.Module, names: Mapping[str, str]) -> Weights:
    """Return the weights of a tower in float32, under CLIP's names.

    Args:
        module: the tower.
        names: its family's, as in `clip_export.encoders.families.family.ImageTower`.
    """
    weights = {}
    for name, tensor in module.state_dict().items():
        for theirs, ours in names.items():
            name = re.sub(theirs, ours, name)  # noqa: PLW2901 (one replacement after the other)
        weights[name] = tensor.detach().float()
    return weights


def below(weights: Weights, prefix: str) -> Weights:
    """Return the weights whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def renamed(weights: Weights, names: Mapping[str, str]) -> Weights:
    """Weights and biases of the modules ``names`` (theirs to ours), those that exist."""
    return {
        f"{ours}.{kind}": weights[f"{theirs}.{kind}"]
        for theirs, ours in names.items()
        for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in weights
    }


_SCALES = {"layer_scale1.lambda1": "out", "layer_scale2.lambda1": "fc2"}

_BLOCK_NAMES = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
    "self_attn.qkv": "qkv",
    "self_attn.out_proj": "out",
}

_PACKS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "fc1": ("mlp.gate_proj", "mlp.fc1"),
}
"""Linear layers that read the same tokens, side by side in one; those of a checkpoint may be packed already."""


def _packed(layer: Weights) -> Weights:
    """Query, key and value in one, a gate with what it opens, and a bias of zero where there is none."""
    block = renamed(layer, _BLOCK_NAMES)
    for packed, names in _PACKS.items():
        if f"{names[0]}.weight" in layer:
            weights = [layer[f"{name}.weight"] for name in names]
            biases = [_bias(layer, name, weight) for name, weight in zip(names, weights, strict=True)]
            block |= {f"{packed}.weight": torch.cat(weights), f"{packed}.bias": torch.cat(biases)}
    return block | {f"{name}.bias": _bias(block, name, block[f"{name}.weight"]) for name in ("out", "fc1", "fc2")}


def _bias(weights: Weights, name: str, weight: Tensor) -> Tensor:
    return weights.get(f"{name}.bias", torch.zeros(len(weight)))


def _folded_slope(block: Weights) -> Weights:
    """QuickGELU as SiLU: with y = 1.702 x, ``x * sigmoid(1.702 x)`` is ``y * sigmoid(y) / 1.702``."""
    return {
        "fc1.weight": block["fc1.weight"] * QUICK_GELU_SLOPE,
        "fc1.bias": block["fc1.bias"] * QUICK_GELU_SLOPE,
        "fc2.weight": block["fc2.weight"] / QUICK_GELU_SLOPE,
    }


def _query_apart(block: Weights) -> Weights:
    """Return the weights of a last block in which only the token that is read queries the others."""
    apart = {name: tensor for name, tensor in block.items() if not name.startswith("qkv.")}
    for kind in ("weight", "bias"):
        query, *key_value = block[f"qkv.{kind}"].chunk(3)
        apart |= {f"query.{kind}": query, f"key_value.{kind}": torch.cat(key_value)}
    return apart
