"""From the image tower of a transformers checkpoint to `VisionTransformer`: configuration and weights.

Each exact rewrite of weights is a function of its own here or in `clip_export.graph.block_weights`; those of structure
are in `clip_export.graph.vit`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clip_export.encoders.image import Encoder
from clip_export.graph.block_weights import Weights, below, block_config, block_weights, named_like_clip, renamed
from clip_export.graph.operators import STANDARD, Operators
from clip_export.graph.vit import VisionTransformer, ViTConfig
from clip_toolkit.spec.classifier import Preprocessing

_NOTHING_TO_FOLD = Preprocessing("squash", 0, 0, "bicubic", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0)


def canonical_vit(
    encoder: Encoder, operators: Operators = STANDARD, takes_pixel_values: bool = False
) -> VisionTransformer:
    """Rebuild the encoder as the canonical vision transformer in float32, up to the block that its feature reads.

    Weights that are not rewritten are those of the encoder itself.

    Args:
        encoder: the encoder.
        operators: spelling of attention and SiLU.
        takes_pixel_values: expect normalised ``pixel_values`` and fold nothing into the patch convolution.
    """
    config = _config(encoder, takes_pixel_values)
    with torch.device("meta"):
        model = VisionTransformer(config, operators).eval().requires_grad_(False)
    model.load_state_dict(_weights(encoder, config), assign=True)
    return model


def _config(encoder: Encoder, takes_pixel_values: bool) -> ViTConfig:
    config, rules, projection = encoder.tower.config, encoder.family.image, encoder.projection
    sizes, tokens = block_config(encoder.blocks), encoder.tokens
    if tokens is not None:
        sizes["depth"] = tokens.depth
    return ViTConfig(
        size=math.isqrt(config.num_patches) * config.patch_size if rules.naflex else encoder.preprocessing.size,
        patch=config.patch_size,
        **sizes,
        poolings=(rules.pooling,) if tokens is None else tokens.poolings,
        class_token=rules.pooling != "attention",
        pre_norm=rules.pre_norm,
        registers=getattr(config, "num_register_tokens", 0),
        rotary=rules.rotation is not None,
        post_norms=1 if encoder.reads_first_token or tokens is not None else rules.post_norms,
        plain_norm=tokens is not None,
        projection=projection.out_features if projection is not None else None,
        projection_bias=projection is not None and projection.bias is not None,
        resampled=rules.naflex,
        takes_pixel_values=takes_pixel_values,
    )


def _weights(encoder: Encoder, config: ViTConfig) -> Weights:
    rules = encoder.family.image
    source = named_like_clip(encoder.tower, rules.names)
    if rules.positions is not None:
        source["embeddings.position_embedding"] = rules.positions(encoder.tower, encoder.preprocessing.size)
    elif rules.rotation is not None:  # which are all positions that there are
        patches = (encoder.preprocessing.size // encoder.tower.config.patch_size) ** 2
        source["embeddings.position_embedding"] = torch.zeros(1, 1 + patches, config.width)
    fold = _NOTHING_TO_FOLD if config.takes_pixel_values else encoder.preprocessing
    weights = _folded_patch(source, fold) | _positions(source) | renamed(source, {"pre_layrnorm": "pre_norm"})
    if not config.plain_norm:
        weights |= renamed(source, {"post_layernorm": "post_norm"}) | _pool(source)
    if rules.rotation is not None:
        weights |= _rotation(rules.rotation(encoder.tower, encoder.preprocessing.size))
    for i in range(config.depth):
        class_only = config.reads_class_only and i == config.depth - 1
        block = block_weights(below(source, f"encoder.layers.{i}."), encoder.blocks.activation, class_only)
        weights |= {f"blocks.{i}.{name}": tensor for name, tensor in block.items()}
    if config.has_query:
        weights["query"] = torch.zeros(config.width) if encoder.query is None else encoder.query
    if encoder.projection is not None:
        weights |= {f"projection.{name}": value.float() for name, value in encoder.projection.state_dict().items()}
    return weights


def _folded_patch(source: Weights, preprocessing: Preprocessing) -> Weights:
    """Fold ``(pixel * scale - mean) / std`` into the patch convolution. Exact: the convolution pads nothing."""
    weight = source["embeddings.patch_embedding.weight"].double()
    if weight.ndim == 2:  # of a linear layer, which reads the channels of a pixel together
        weight = weight.unflatten(1, (math.isqrt(weight.shape[1] // 3), -1, 3)).permute(0, 3, 1, 2)
    bias = source.get("embeddings.patch_embedding.bias", torch.zeros(weight.shape[0])).double()
    mean = torch.tensor(preprocessing.mean, dtype=torch.float64).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, dtype=torch.float64).view(1, 3, 1, 1)
    return {
        "patch.weight": (weight * preprocessing.scale / std).float(),
        "patch.bias": (bias - (weight * mean / std).sum((1, 2, 3))).float(),
    }


def _positions(source: Weights) -> Weights:
    """Return the position embeddings, with the class token added to its own beforehand."""
    names = ("embeddings.position_embedding.weight", "embeddings.position_embedding")
    (positions,) = (source[name] for name in names if name in source)
    positions = positions.reshape(1, -1, positions.shape[-1])
    if "embeddings.class_embedding" in source:
        class_token = source["embeddings.class_embedding"].reshape(1, 1, -1) + positions[:, :1]
        registers = source.get("embeddings.register_tokens", positions[:, :0])  # which have no position
        positions = torch.cat([class_token, registers, positions[:, 1:]], dim=1)
    return {"positions": positions}


def _rotation(turns: Tensor) -> Weights:
    """Give the sines the sign of the half that they belong to: rows of ``[[cos, -sin], [sin, cos]]``."""
    cosines, sines = turns
    first, second = sines.chunk(2, dim=-1)
    return {"rotation": torch.stack([cosines, torch.cat([-first, second], dim=-1)])}


def _pool(source: Weights) -> Weights:
    """SigLIP's attention pooling: the query part of the packed projection meets the constant probe here."""
    if "head.probe" not in source:
        return {}
    query_weight, *key_value_weight = source["head.attention.in_proj_weight"].chunk(3)
    query_bias, *key_value_bias = source["head.attention.in_proj_bias"].chunk(3)
    names = {"attention.out_proj": "out", "layernorm": "norm", "mlp.fc1": "fc1", "mlp.fc2": "fc2"}
    pool = renamed(below(source, "head."), names)
    pool |= {"query": source["head.probe"] @ query_weight.T + query_bias}
    pool |= {"key_value.weight": torch.cat(key_value_weight), "key_value.bias": torch.cat(key_value_bias)}
    return {f"pool.{name}": tensor for name, tensor in pool.items()}
