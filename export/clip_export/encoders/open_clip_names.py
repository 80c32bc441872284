"""OpenCLIP's weights under the names of transformers, and in its layout."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_NAMES = {
    r"^module\.": "",  # of a training that was distributed
    r"^(text\.)?text_projection\.": "text_model.head.",
    r"^text\.": "",
    r"^visual\.(transformer\.resblocks|trunk\.blocks)\.": "vision_model.encoder.layers.",
    r"^transformer\.resblocks\.": "text_model.encoder.layers.",
    r"^visual\.(conv1|trunk\.patch_embed\.proj)\.": "vision_model.embeddings.patch_embedding.",
    r"^visual\.class_embedding$": "vision_model.embeddings.class_embedding",
    r"^visual\.(positional_embedding|trunk\.pos_embed)$": "vision_model.embeddings.position_embedding.weight",
    r"^visual\.ln_pre\.": "vision_model.pre_layrnorm.",
    r"^visual\.(ln_post|trunk\.norm)\.": "vision_model.post_layernorm.",
    r"^visual\.proj$": "visual_projection.weight",
    r"^text_projection$": "text_projection.weight",
    r"^token_embedding\.": "text_model.embeddings.token_embedding.",
    r"^positional_embedding$": "text_model.embeddings.position_embedding.weight",
    r"^ln_final\.": "text_model.final_layer_norm.",
    r"(layers\.\d+)\.(ln_|norm)([12])\.": r"\1.layer_norm\3.",
    r"(layers\.\d+)\.mlp\.c_fc\.": r"\1.mlp.fc1.",
    r"(layers\.\d+)\.mlp\.c_proj\.": r"\1.mlp.fc2.",
    r"(layers\.\d+)\.attn\.(out_)?proj\.": r"\1.self_attn.out_proj.",
    r"(layers\.\d+)\.attn\.(qkv\.|in_proj_)": r"\1.self_attn.in_proj_",
    r"^visual\.trunk\.attn_pool\.latent$": "vision_model.head.probe",
    r"^visual\.trunk\.attn_pool\.proj\.": "vision_model.head.attention.out_proj.",
    r"^visual\.trunk\.attn_pool\.norm\.": "vision_model.head.layernorm.",
    r"^visual\.trunk\.attn_pool\.mlp\.": "vision_model.head.mlp.",
}

_POOL = "visual.trunk.attn_pool."
_IMAGE = re.compile(r"^(module\.)?visual\.")


def transformers_weights(weights: Mapping[str, Tensor], is_timm: bool = False) -> dict[str, Tensor]:
    """Return OpenCLIP's weights under the names of transformers, with the layout that it expects.

    Args:
        weights: of both towers.
        is_timm: leave those of the image tower to timm's own module.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if is_timm and _IMAGE.match(name):
            found[_IMAGE.sub("vision_model.", name)] = tensor
            continue
        for theirs, ours in _NAMES.items():
            name = re.sub(theirs, ours, name)  # noqa: PLW2901 (one replacement after the other)
        if ".self_attn.in_proj_" in name:
            base, kind = name.rsplit(".in_proj_", 1)
            found |= {f"{base}.{part}_proj.{kind}": value for part, value in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            is_product = name in ("visual_projection.weight", "text_projection.weight")  # x @ W, not x @ W.T
            found[name] = tensor.T if is_product else tensor
    axes = (1,) if "text_model.head.weight" in found else ()  # of SigLIP's and of CLIP's numbers in transformers
    found |= {name: found[name].reshape(axes) for name in ("logit_scale", "logit_bias") if name in found}
    return _with_timm(found)


def _with_timm(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Lay out positions and attention pooling of timm's towers as transformers does."""
    positions = "vision_model.embeddings.position_embedding.weight"
    if positions in weights:
        weights[positions] = weights[positions].flatten(end_dim=-2)
    for kind in ("weight", "bias"):
        if f"{_POOL}q.{kind}" in weights:
            parts = [weights.pop(f"{_POOL}{name}.{kind}") for name in ("q", "kv")]
            weights[f"vision_model.head.attention.in_proj_{kind}"] = torch.cat(parts)
    return weights
