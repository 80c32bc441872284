"""From the image tower of a transformers checkpoint to `VisionTransformer`: configuration and weights.

Each exact rewrite of weights is a function of its own here; those of structure are in `clip_export.vit`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from clip_export.encoder import Encoder
from clip_export.operators import STANDARD, Operators
from clip_export.vit import VisionTransformer, ViTConfig
from clip_toolkit.errors import EncoderError
from clip_toolkit.spec import Preprocessing

Weights = dict[str, Tensor]

_ACTIVATIONS = {"quick_gelu": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_pytorch_tanh"}
"""What transformers configs call an activation, and which of `clip_export.operators.ACTIVATIONS` computes it."""

QUICK_GELU_SLOPE = 1.702
"""Of ``x * sigmoid(1.702 x)``, which OpenAI's CLIP uses: section 2 of https://arxiv.org/abs/1606.08415."""

_NOTHING_TO_FOLD = Preprocessing("squash", 0, 0, "bicubic", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0)


def canonical_vit(
    encoder: Encoder, operators: Operators = STANDARD, takes_pixel_values: bool = False
) -> VisionTransformer:
    """The encoder as the one canonical vision transformer, float32 and in evaluation mode.

    Args:
        encoder: the encoder.
        operators: spelling of attention and SiLU.
        takes_pixel_values: expect normalised ``pixel_values`` and fold nothing into the patch convolution.

    Raises:
        EncoderError: an activation that is not supported.
    """
    model = VisionTransformer(_config(encoder, takes_pixel_values), operators)
    model.load_state_dict(_weights(encoder, takes_pixel_values))
    return model.eval().requires_grad_(False)


def _config(encoder: Encoder, takes_pixel_values: bool) -> ViTConfig:
    config, family, projection = encoder.tower.config, encoder.family, encoder.projection
    if config.hidden_act not in _ACTIVATIONS:
        raise EncoderError(
            f"{encoder.id}: activation {config.hidden_act!r} is not supported. "
            f"Supported are: {', '.join(_ACTIVATIONS)}."
        )
    return ViTConfig(
        size=config.image_size,
        patch=config.patch_size,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        hidden=config.intermediate_size,
        depth=config.num_hidden_layers,
        activation=_ACTIVATIONS[config.hidden_act],
        eps=config.layer_norm_eps,
        pooling=family.pooling,
        pre_norm=family.pre_norm,
        post_norms=1 if encoder.projects_first_token else family.post_norms,
        projection=projection.out_features if projection is not None else None,
        projection_bias=projection is not None and projection.bias is not None,
        takes_pixel_values=takes_pixel_values,
    )


def _weights(encoder: Encoder, takes_pixel_values: bool) -> Weights:
    source = {name: tensor.detach().float() for name, tensor in encoder.tower.state_dict().items()}
    rule = _NOTHING_TO_FOLD if takes_pixel_values else encoder.preprocessing
    weights = _folded_patch(source, rule) | _positions(source) | _norms(source) | _pool(source)
    last = encoder.tower.config.num_hidden_layers - 1
    for i in range(last + 1):
        block = _block(_below(source, f"encoder.layers.{i}."))
        if encoder.tower.config.hidden_act == "quick_gelu":
            block |= _folded_slope(block)
        if i == last and encoder.family.pooling == "class":
            block = _query_apart(block)
        weights |= {f"blocks.{i}.{name}": tensor for name, tensor in block.items()}
    if encoder.projection is not None:
        weights |= {f"projection.{name}": value.float() for name, value in encoder.projection.state_dict().items()}
    return weights


def _below(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _renamed(weights: Weights, names: Mapping[str, str]) -> Weights:
    """Weights and biases of the modules ``names`` (theirs to ours), those that exist."""
    return {
        f"{ours}.{kind}": weights[f"{theirs}.{kind}"]
        for theirs, ours in names.items()
        for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in weights
    }


def _folded_patch(source: Weights, preprocessing: Preprocessing) -> Weights:
    """Fold ``(pixel * scale - mean) / std`` into the patch convolution. Exact: the convolution pads nothing."""
    weight = source["embeddings.patch_embedding.weight"].double()
    bias = source.get("embeddings.patch_embedding.bias", torch.zeros(weight.shape[0])).double()
    mean = torch.tensor(preprocessing.mean, dtype=torch.float64).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, dtype=torch.float64).view(1, 3, 1, 1)
    return {
        "patch.weight": (weight * preprocessing.scale / std).float(),
        "patch.bias": (bias - (weight * mean / std).sum((1, 2, 3))).float(),
    }


def _positions(source: Weights) -> Weights:
    """Split the position embeddings, adding the class token's own to it beforehand."""
    positions = source.get("embeddings.position_embedding.weight", source.get("embeddings.position_embedding"))
    positions = positions.reshape(1, -1, positions.shape[-1])
    if "embeddings.class_embedding" not in source:
        return {"positions": positions}
    class_token = source["embeddings.class_embedding"].reshape(1, 1, -1) + positions[:, :1]
    return {"positions": positions[:, 1:], "class_token": class_token}


def _norms(source: Weights) -> Weights:
    return _renamed(source, {"pre_layrnorm": "pre_norm", "post_layernorm": "post_norm"})


def _pool(source: Weights) -> Weights:
    """SigLIP's attention pooling: the query part of the packed projection meets the constant probe here."""
    if "head.probe" not in source:
        return {}
    query_weight, *key_value_weight = source["head.attention.in_proj_weight"].chunk(3)
    query_bias, *key_value_bias = source["head.attention.in_proj_bias"].chunk(3)
    names = {"attention.out_proj": "out", "layernorm": "norm", "mlp.fc1": "fc1", "mlp.fc2": "fc2"}
    pool = _renamed(_below(source, "head."), names)
    pool |= {"query": source["head.probe"] @ query_weight.T + query_bias}
    pool |= {"key_value.weight": torch.cat(key_value_weight), "key_value.bias": torch.cat(key_value_bias)}
    return {f"pool.{name}": tensor for name, tensor in pool.items()}


_BLOCK_NAMES = {"layer_norm1": "norm1", "layer_norm2": "norm2", "mlp.fc1": "fc1", "mlp.fc2": "fc2"}


def _block(block: Weights) -> Weights:
    """A transformer block. BLIP's come with query, key and value packed; CLIP's and SigLIP's are packed here."""
    if "self_attn.qkv.weight" in block:
        return _renamed(block, _BLOCK_NAMES | {"self_attn.qkv": "qkv", "self_attn.projection": "out"})
    packed = {
        f"qkv.{kind}": torch.cat([block[f"self_attn.{name}_proj.{kind}"] for name in "qkv"])
        for kind in ("weight", "bias")
    }
    return packed | _renamed(block, _BLOCK_NAMES | {"self_attn.out_proj": "out"})


def _folded_slope(block: Weights) -> Weights:
    """QuickGELU as SiLU: with y = 1.702 x, ``x * sigmoid(1.702 x)`` is ``y * sigmoid(y) / 1.702``."""
    return {
        "fc1.weight": block["fc1.weight"] * QUICK_GELU_SLOPE,
        "fc1.bias": block["fc1.bias"] * QUICK_GELU_SLOPE,
        "fc2.weight": block["fc2.weight"] / QUICK_GELU_SLOPE,
    }


def _query_apart(block: Weights) -> Weights:
    """The last block of a tower that reads the class token: only that token asks, all of them answer."""
    apart = {name: tensor for name, tensor in block.items() if not name.startswith("qkv.")}
    for kind in ("weight", "bias"):
        query, *key_value = block[f"qkv.{kind}"].chunk(3)
        apart |= {f"query.{kind}": query, f"key_value.{kind}": torch.cat(key_value)}
    return apart
