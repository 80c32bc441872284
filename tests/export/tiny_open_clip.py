"""Tiny checkpoints as OpenCLIP publishes them, made of those of transformers."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import tiny_tokenizers
from tiny_models import save_checkpoint

MODEL = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 48, "head_width": 12, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 514, "width": 32, "heads": 2, "layers": 2},
}
TEXT_OF_SIGLIP = {
    "context_length": 24,
    "vocab_size": tiny_tokenizers.SIGLIP2_TOKENS["vocab_size"],
    "hf_tokenizer_name": "timm/ViT-B-16-SigLIP2",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "width": 32,
    "heads": 2,
    "layers": 2,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "act_kwargs": {"approximate": "tanh"},
}
CLIPA = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 32,
        "layers": 2,
        "width": 48,
        "head_width": 12,
        "patch_size": 8,
        "no_ln_pre": True,
        "pool_type": "avg",
        "final_ln_after_pool": True,
    },
    "text_cfg": {
        "context_length": 12,
        "vocab_size": tiny_tokenizers.BLIP_TOKENS["vocab_size"],
        "hf_tokenizer_name": "bert-base-uncased",
        "tokenizer_kwargs": {"strip_sep_token": True},
        "width": 48,
        "heads": 4,
        "layers": 2,
        "pool_type": "last",
        "no_causal_mask": True,
    },
}
SIGLIP = {"image_size": 32, "timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none"}

_NAMES = {
    r"^text_model\.head\.": "text_projection.",
    r"^vision_model\.encoder\.layers\.": "visual.transformer.resblocks.",
    r"^text_model\.encoder\.layers\.": "transformer.resblocks.",
    r"\.layer_norm([12])\.": r".ln_\1.",
    r"\.mlp\.fc1\.": ".mlp.c_fc.",
    r"\.mlp\.fc2\.": ".mlp.c_proj.",
    r"\.self_attn\.": ".attn.",
    r"^vision_model\.embeddings\.patch_embedding\.": "visual.conv1.",
    r"^vision_model\.embeddings\.class_embedding": "visual.class_embedding",
    r"^vision_model\.embeddings\.position_embedding\.weight": "visual.positional_embedding",
    r"^vision_model\.pre_layrnorm\.": "visual.ln_pre.",
    r"^vision_model\.post_layernorm\.": "visual.ln_post.",
    r"^text_model\.embeddings\.token_embedding\.": "token_embedding.",
    r"^text_model\.embeddings\.position_embedding\.weight": "positional_embedding",
    r"^text_model\.final_layer_norm\.": "ln_final.",
}


def published(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CLIP's weights as OpenCLIP names and lays them out."""
    found = {}
    for name, tensor in weights.items():
        for ours, theirs in _NAMES.items():
            name = re.sub(ours, theirs, name)  # noqa: PLW2901
        found[name] = tensor
    for ours, theirs in (("visual_projection", "visual.proj"), ("text_projection", "text_projection")):
        if f"{ours}.weight" in weights:
            found[theirs] = found.pop(f"{ours}.weight").T.contiguous()
    for name in [name for name in found if ".q_proj." in name]:
        parts = [found.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
        found[name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    return found


def siglip_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The image tower of SigLIP as timm names it and lays it out."""
    tower = {name.removeprefix("vision_model."): item for name, item in weights.items() if name.startswith("vision_")}
    found = {}
    for kind in ("weight", "bias"):
        found[f"attn_pool.q.{kind}"], *others = tower.pop(f"head.attention.in_proj_{kind}").chunk(3)
        found[f"attn_pool.kv.{kind}"] = torch.cat(others)
        for name in [name for name in tower if name.endswith(f"q_proj.{kind}")]:
            parts = [tower.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
            found[name.replace("encoder.layers", "blocks").replace("self_attn.q_proj", "attn.qkv")] = torch.cat(parts)
    names = {
        "embeddings.patch_embedding": "patch_embed.proj",
        "encoder.layers": "blocks",
        "layer_norm": "norm",
        "self_attn.out_proj": "attn.proj",
        "post_layernorm": "norm",
        "head.probe": "attn_pool.latent",
        "head.attention.out_proj": "attn_pool.proj",
        "head.layernorm": "attn_pool.norm",
        "head.mlp": "attn_pool.mlp",
    }
    found["pos_embed"] = tower.pop("embeddings.position_embedding.weight")[None]
    for name, tensor in tower.items():
        for theirs, timms in names.items():
            name = name.replace(theirs, timms)  # noqa: PLW2901
        found[name] = tensor
    return {f"visual.trunk.{name}": tensor.clone() for name, tensor in found.items()}


def clipa_weights(width: int = 48, patch: int = 8, tokens: int = 16) -> dict[str, torch.Tensor]:
    """CLIPA's weights, random: both towers as `CLIPA` describes them."""
    random = torch.Generator().manual_seed(3)
    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (1 + tokens, width),
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.proj": (width, 24),
        "token_embedding.weight": (tiny_tokenizers.BLIP_TOKENS["vocab_size"], width),
        "positional_embedding": (12, width),
        "text_projection": (width, 24),
    }
    for block in (f"{tower}resblocks.{i}." for tower in ("visual.transformer.", "transformer.") for i in range(2)):
        shapes |= {
            f"{block}attn.in_proj_weight": (3 * width, width),
            f"{block}attn.in_proj_bias": (3 * width,),
            f"{block}attn.out_proj.weight": (width, width),
            f"{block}attn.out_proj.bias": (width,),
            f"{block}mlp.c_fc.weight": (2 * width, width),
            f"{block}mlp.c_fc.bias": (2 * width,),
            f"{block}mlp.c_proj.weight": (width, 2 * width),
            f"{block}mlp.c_proj.bias": (width,),
        }
        shapes |= {f"{block}ln_{i}.{kind}": (width,) for i in (1, 2) for kind in ("weight", "bias")}
    shapes |= {f"{norm}.{kind}": (width,) for norm in ("visual.ln_post", "ln_final") for kind in ("weight", "bias")}
    weights = {name: 0.2 * torch.randn(shape, generator=random) for name, shape in shapes.items()}
    weights |= {name: 1 + tensor for name, tensor in weights.items() if "ln_" in name and name.endswith("weight")}
    return weights | {"logit_scale": torch.tensor(2.0)}


def save_open_clip(kind: str, folder: Path) -> Path:
    """Write a checkpoint of ``clip``, ``siglip`` or ``clipa`` in OpenCLIP's format into ``folder`` and return it."""
    folder.mkdir(exist_ok=True)
    if kind == "clipa":
        weights, model = clipa_weights(), CLIPA
        rule = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bilinear"}
        tiny_tokenizers.save_blip(folder)
    else:
        with tempfile.TemporaryDirectory() as source:
            name = "siglip2" if kind == "siglip" else kind
            weights = load_file(save_checkpoint(name, Path(source)) / "model.safetensors")
        model, rule = MODEL, {}
        if kind == "siglip":
            text = {name: tensor for name, tensor in weights.items() if not name.startswith("vision_")}
            weights = siglip_weights(weights) | {_below_text(name): tensor for name, tensor in published(text).items()}
            model = {"embed_dim": 48, "custom_text": True, "vision_cfg": SIGLIP, "text_cfg": TEXT_OF_SIGLIP}
            rule = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
            tiny_tokenizers.save_siglip2(folder)
        else:
            weights = published(weights)
            tiny_tokenizers.save_clip(folder)
    weights |= {name: weights[name].reshape(()) for name in ("logit_scale", "logit_bias") if name in weights}
    save_file(weights, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": rule}))
    return folder


def _below_text(name: str) -> str:
    return name if name.startswith("logit_") else f"text.{name}"
