"""Weights of a transformer block: from the names of transformers to those of `clip_export.graph.blocks.Block`.

Each exact rewrite of weights is a function of its own here; those of structure are in `clip_export.graph.blocks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clip_toolkit.errors import EncoderError

Weights = dict[str, Tensor]

_ACTIVATIONS = {"quick_gelu": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_pytorch_tanh"}
"""What transformers configs call an activation, and which of `clip_export.graph.operators.ACTIVATIONS` computes it."""

QUICK_GELU_SLOPE = 1.702
"""Of ``x * sigmoid(1.702 x)``, which OpenAI's CLIP uses: section 2 of arXiv:1606.08415."""


def block_settings(config: Any, encoder: str) -> dict[str, Any]:
    """What a transformers configuration says of the blocks, by the names of `clip_export.graph.blocks.BlockConfig`.

    Raises:
        EncoderError: an activation that is not supported.
    """
    if config.hidden_act not in _ACTIVATIONS:
        raise EncoderError(
            f"{encoder}: activation {config.hidden_act!r} is not supported. Supported are: {', '.join(_ACTIVATIONS)}."
        )
    return {
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "hidden": config.intermediate_size,
        "depth": config.num_hidden_layers,
        "activation": _ACTIVATIONS[config.hidden_act],
        "eps": config.layer_norm_eps,
    }


def block_weights(layer: Weights, activation: str, one_token: bool) -> Weights:
    """The weights of one `Block`.

    Args:
        layer: those of a transformers layer, by the names of CLIP, SigLIP, BLIP's image tower or BERT.
        activation: as the transformers configuration calls it.
        one_token: as in `Block`.
    """
    block = _packed(_renamed_bert(layer) if "attention.self.query.weight" in layer else layer)
    if activation == "quick_gelu":
        block |= _folded_slope(block)
    return _query_apart(block) if one_token else block


def below(weights: Weights, prefix: str) -> Weights:
    """The weights whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def renamed(weights: Weights, names: Mapping[str, str]) -> Weights:
    """Weights and biases of the modules ``names`` (theirs to ours), those that exist."""
    return {
        f"{ours}.{kind}": weights[f"{theirs}.{kind}"]
        for theirs, ours in names.items()
        for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in weights
    }


_BERT_NAMES = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "layer_norm1",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "layer_norm2",
}


def _renamed_bert(layer: Weights) -> Weights:
    """BERT's layer under CLIP's names. BLIP's attention from text to image stays behind: no picture is read here."""
    return renamed(layer, _BERT_NAMES)


_BLOCK_NAMES = {"layer_norm1": "norm1", "layer_norm2": "norm2", "mlp.fc1": "fc1", "mlp.fc2": "fc2"}


def _packed(layer: Weights) -> Weights:
    """BLIP's image tower comes with query, key and value packed; those of the others are packed here."""
    if "self_attn.qkv.weight" in layer:
        return renamed(layer, _BLOCK_NAMES | {"self_attn.qkv": "qkv", "self_attn.projection": "out"})
    packed = {
        f"qkv.{kind}": torch.cat([layer[f"self_attn.{name}_proj.{kind}"] for name in "qkv"])
        for kind in ("weight", "bias")
    }
    return packed | renamed(layer, _BLOCK_NAMES | {"self_attn.out_proj": "out"})


def _folded_slope(block: Weights) -> Weights:
    """QuickGELU as SiLU: with y = 1.702 x, ``x * sigmoid(1.702 x)`` is ``y * sigmoid(y) / 1.702``."""
    return {
        "fc1.weight": block["fc1.weight"] * QUICK_GELU_SLOPE,
        "fc1.bias": block["fc1.bias"] * QUICK_GELU_SLOPE,
        "fc2.weight": block["fc2.weight"] / QUICK_GELU_SLOPE,
    }


def _query_apart(block: Weights) -> Weights:
    """The last block of a tower that reads one token: only that token asks, all of them answer."""
    apart = {name: tensor for name, tensor in block.items() if not name.startswith("qkv.")}
    for kind in ("weight", "bias"):
        query, *key_value = block[f"qkv.{kind}"].chunk(3)
        apart |= {f"query.{kind}": query, f"key_value.{kind}": torch.cat(key_value)}
    return apart
