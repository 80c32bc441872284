"""Tiny models of OpenCLIP with image towers of timm's, as OpenCLIP builds and publishes them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CustomTextCLIP
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.eva import Eva
from timm.models.fastvit import FastVit, RepConditionalPosEnc

import tiny_tokenizers

SIZE = 64
RULE = {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear"}

_TEXT = {"context_length": 24, "vocab_size": tiny_tokenizers.CLIP_TOKENS["vocab_size"], "width": 32, "heads": 2}
_PLAIN = {"timm_proj": None, "image_size": SIZE}
MODELS = {
    "mobileclip": (
        {"timm_model_name": "tiny_fastvit", "timm_pool": "avg", "timm_drop_path": 0.1},
        {"no_causal_mask": True},
    ),
    "eva02": ({"timm_model_name": "tiny_eva02", "timm_pool": "token", "timm_model_pretrained": True}, {}),
    "pe-core": ({"timm_model_name": "tiny_pe_core", "timm_pool": "map"}, {}),
}


def model_cfg(name: str) -> dict[str, Any]:
    """``model_cfg`` of a model in `MODELS`."""
    vision, text = MODELS[name]
    texts = _TEXT | {"layers": 2} | text
    return {"embed_dim": 24, "custom_text": True, "vision_cfg": _PLAIN | vision, "text_cfg": texts}


@register_model
def tiny_fastvit(**settings: Any) -> FastVit:
    """MobileCLIP's kinds of layers: branches to add up, squeeze and excitation, attention behind a convolution."""
    return FastVit(
        layers=(1, 1),
        embed_dims=(16, 32),
        mlp_ratios=(2, 2),
        downsamples=(False, True),
        se_downsamples=(False, True),
        pos_embs=(None, partial(RepConditionalPosEnc, spatial_shape=(7, 7))),
        token_mixers=("repmixer", "attention"),
        lkc_use_act=True,
        **_of_tower(settings),
    )


def _eva(**settings: Any) -> Eva:
    sizes = {"img_size": SIZE, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3}
    return Eva(**sizes, use_rot_pos_emb=True, ref_feat_shape=(4, 4), **_of_tower(settings))


def _of_tower(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out what timm's factory says of weights to fetch."""
    return {name: value for name, value in settings.items() if not name.startswith(("pretrained", "cache_dir"))}


@register_model
def tiny_eva02(**settings: Any) -> Eva:
    """Rotations, gated MLPs, and normalisations inside of attention and MLP."""
    return _eva(qkv_fused=False, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True, **settings)


@register_model
def tiny_pe_core(**settings: Any) -> Eva:
    """Rotations in another order, and a pooling by attention."""
    rope = {"attn_type": "rope", "rope_grid_offset": 1.0, "rope_grid_indexing": "xy"}
    return _eva(**rope, use_pre_transformer_norm=True, attn_pool_num_heads=4, attn_pool_mlp_ratio=4.0, **settings)


def open_clip_model(name: str) -> CustomTextCLIP:
    """Build the model of open_clip itself, with weights of trained scale: norms, biases and statistics differ."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        settings = model_cfg(name)
        del settings["custom_text"]
        settings["vision_cfg"] |= {"timm_model_pretrained": False}
        model = CustomTextCLIP(**settings)
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.add_(torch.rand_like(tensor))
            elif tensor.is_floating_point() and tensor.ndim:
                tensor.add_(torch.randn_like(tensor), alpha=0.3 if tensor.ndim == 4 else 0.1)
    return model.eval().requires_grad_(False)


def save_timm(name: str, folder: Path) -> Path:
    """Write the checkpoint of a model in `MODELS` into ``folder`` and return it."""
    folder.mkdir(exist_ok=True)
    weights = {key: tensor.contiguous() for key, tensor in open_clip_model(name).state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    content = {"model_cfg": model_cfg(name), "preprocess_cfg": RULE}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    tiny_tokenizers.save_clip(folder)
    return folder
