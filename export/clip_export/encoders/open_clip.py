"""Checkpoints in OpenCLIP's own format, read as the transformers models that they equal.

Sizes are those of the weights; open_clip_config.json has what weights do not tell. What it may say is listed here, and
anything else is refused by name: a switch that is ignored would change the features without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from clip_export.encoders import configuration
from clip_export.encoders.configuration import read_json, refuse_code
from clip_export.encoders.open_clip_processor import CONFIG
from clip_export.encoders.weights import read_tensors
from clip_toolkit.errors import EncoderError

_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

_VISION = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "patch_dropout"}
_TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "hf_tokenizer_name"}
_TIMM = {"image_size", "timm_model_name", "timm_model_pretrained", "timm_drop", "timm_drop_path"}
_TIMM_POOLING = {"timm_pool": "map", "timm_proj": "none"}
_NEUTRAL_VISION = {
    "pool_type": "tok",
    "pos_embed_type": "learnable",
    "attn_pooler_queries": 256,
    "attn_pooler_heads": 8,
}
_NEUTRAL_TEXT = {"pool_type": "argmax", "proj_type": "linear", "eos_id": 2, "hf_proj_type": "mlp"}
"""Values of further keys that change nothing; so do false, null and nothing."""

_TIMM_HEADS = {"base": 12, "large": 16, "so400m": 16, "giantopt": 16}
_TIMM_TANH = re.compile(r"vit_(base_patch32|so400m_patch16|giantopt_patch16)_.*|vit_large_patch16_siglip_512")
"""SigLIP towers that timm computes with the tanh form of GELU: timm/models/vision_transformer.py of timm 1.0.31."""

_LARGEST = 2
"""The ``eos_token_id`` that makes transformers read the token with the largest number, as OpenCLIP does."""


def is_open_clip(folder: Path) -> bool:
    """Tell whether a checkpoint is in OpenCLIP's format alone: many folders hold that of transformers, too."""
    return (folder / CONFIG).is_file() and not (folder / configuration.CONFIG).is_file()


def open_clip_files(folder: Path) -> list[str]:
    """Name the file of weights of a checkpoint in OpenCLIP's format.

    Raises:
        EncoderError: there is none.
    """
    for name in _FILES:
        if (folder / name).is_file():
            return [name]
    raise EncoderError(f"{folder}: has {CONFIG}, but neither {' nor '.join(_FILES)}.")


def open_clip_config(folder: Path) -> Any:
    """Return the transformers configuration of the model that a checkpoint equals.

    Raises:
        EncoderError: it is missing or damaged, or has a tower of a kind that is not read.
    """
    path = folder / CONFIG
    content = read_json(path)
    refuse_code(path, content)
    model = content.get("model_cfg")
    if not isinstance(model, dict) or not isinstance(model.get("vision_cfg"), dict):
        raise EncoderError(f"{path}: expected a model_cfg with a vision_cfg.")
    vision, weights = model["vision_cfg"], _read(folder)
    if vision.get("timm_model_name"):
        return _siglip(path, vision, weights)
    _check(path, "vision_cfg", vision, _VISION, _NEUTRAL_VISION)
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    image = _clip_vision(path, vision, weights) | {"hidden_act": activation}
    text = model.get("text_cfg") or {}
    if text.get("hf_model_name") or not any(name.removeprefix("text.") == "token_embedding.weight" for name in weights):
        return transformers.CLIPVisionConfig(**image, architectures=["CLIPVisionModelWithProjection"])
    _check(path, "text_cfg", text, _TEXT, _NEUTRAL_TEXT)
    return transformers.CLIPConfig(
        vision_config=image,
        text_config=_clip_text(text, transformers_weights(weights)) | {"hidden_act": activation},
        projection_dim=image["projection_dim"],
        architectures=["CLIPModel"],
    )


def open_clip_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint under the names of transformers.

    Raises:
        EncoderError: they are missing or damaged.
    """
    return transformers_weights(_read(folder))


def transformers_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return OpenCLIP's weights under the names of transformers, with the layout that it expects."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        for theirs, ours in _NAMES.items():
            name = re.sub(theirs, ours, name)  # noqa: PLW2901 (one replacement after the other)
        if name.endswith((".in_proj_weight", ".in_proj_bias")) and ".layers." in name:
            base, kind = name.rsplit(".in_proj_", 1)
            found |= {f"{base}.{part}_proj.{kind}": value for part, value in zip("qkv", tensor.chunk(3), strict=True)}
        elif name in ("visual.proj", "text_projection"):
            found["visual_projection.weight" if name == "visual.proj" else "text_projection.weight"] = tensor.T
        elif name.startswith("visual.trunk.pos_embed"):
            found["vision_model.embeddings.position_embedding.weight"] = tensor[0]
        else:
            found[name] = tensor
    return _with_pooling(found)


_NAMES = {
    r"^text\.(?!text_projection\.)": "",
    r"^visual\.(transformer\.resblocks|trunk\.blocks)\.": "vision_model.encoder.layers.",
    r"^transformer\.resblocks\.": "text_model.encoder.layers.",
    r"^visual\.(conv1|trunk\.patch_embed\.proj)\.": "vision_model.embeddings.patch_embedding.",
    r"^visual\.class_embedding$": "vision_model.embeddings.class_embedding",
    r"^visual\.positional_embedding$": "vision_model.embeddings.position_embedding.weight",
    r"^visual\.ln_pre\.": "vision_model.pre_layrnorm.",
    r"^visual\.(ln_post|trunk\.norm)\.": "vision_model.post_layernorm.",
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


def _with_pooling(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pack query, key and value of the attention pooling as transformers does."""
    prefix = "visual.trunk.attn_pool."
    for kind in ("weight", "bias"):
        if f"{prefix}q.{kind}" in weights:
            parts = [weights.pop(f"{prefix}{name}.{kind}") for name in ("q", "kv")]
            weights[f"vision_model.head.attention.in_proj_{kind}"] = torch.cat(parts)
    return weights


def _read(folder: Path) -> dict[str, Tensor]:
    return read_tensors(folder / open_clip_files(folder)[0])


def _clip_vision(path: Path, vision: dict[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    sizes = _sizes(transformers_weights(weights), "vision_model.", path)
    width, patch = weights["visual.conv1.weight"].shape[0], weights["visual.conv1.weight"].shape[-1]
    return sizes | {
        "hidden_size": width,
        "num_attention_heads": width // vision.get("head_width", 64),
        "image_size": _side(path, vision),
        "patch_size": patch,
        "projection_dim": weights["visual.proj"].shape[1],
        "layer_norm_eps": 1e-5,
    }


def _clip_text(text: dict[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    tokens, positions = (weights[f"text_model.embeddings.{name}_embedding.weight"] for name in ("token", "position"))
    return _sizes(weights, "text_model.") | {
        "hidden_size": tokens.shape[1],
        "num_attention_heads": text.get("heads", 8),
        "vocab_size": tokens.shape[0],
        "max_position_embeddings": positions.shape[0],
        "layer_norm_eps": 1e-5,
        "eos_token_id": _LARGEST,
    }


def _siglip(path: Path, vision: dict[str, Any], weights: Mapping[str, Tensor]) -> Any:
    name = str(vision["timm_model_name"])
    size = re.fullmatch(r"vit_([a-z0-9]+)_patch\d+_siglip_\d+", name)
    if size is None or size[1] not in _TIMM_HEADS:
        raise EncoderError(
            f"{path}: the image tower {name!r} is not read. Read are CLIP's ViT and timm's SigLIP towers."
        )
    _check(path, "vision_cfg", vision, _TIMM, _TIMM_POOLING)
    for key, value in _TIMM_POOLING.items():
        if vision.get(key) != value:
            raise EncoderError(f"{path}: vision_cfg.{key} is {vision.get(key)!r}, and only {value!r} is read.")
    found = transformers_weights(weights)
    patch = found["vision_model.embeddings.patch_embedding.weight"]
    return transformers.SiglipVisionConfig(
        **_sizes(found, "vision_model.", path),
        hidden_size=patch.shape[0],
        num_attention_heads=_TIMM_HEADS[size[1]],
        image_size=_side(path, vision),
        patch_size=patch.shape[-1],
        hidden_act="gelu_pytorch_tanh" if _TIMM_TANH.fullmatch(name) else "gelu",
        layer_norm_eps=1e-6,
        architectures=["SiglipVisionModel"],
    )


def _sizes(weights: Mapping[str, Tensor], tower: str, path: Path | None = None) -> dict[str, int]:
    """Depth of a tower and width of its MLPs, of weights with the names of transformers."""
    layers = {name.split(".")[3] for name in weights if name.startswith(f"{tower}encoder.layers.")}
    hidden = weights.get(f"{tower}encoder.layers.0.mlp.fc1.weight")
    if hidden is None:
        raise EncoderError(
            f"{path}: the weights do not have the tower that it describes. Fetch both of one checkpoint."
        )
    return {"num_hidden_layers": len(layers), "intermediate_size": hidden.shape[0]}


def _side(path: Path, vision: dict[str, Any]) -> int:
    size = vision.get("image_size", 224)
    sides = set(size) if isinstance(size, list) else {size}
    if len(sides) != 1 or not all(isinstance(side, int) for side in sides):
        raise EncoderError(f"{path}: image_size {size!r} is not square; only square sizes work.")
    return int(sides.pop())


def _check(path: Path, where: str, settings: dict[str, Any], known: set[str], neutral: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if key not in known and value and neutral.get(key) != value:
            raise EncoderError(f"{path}: {where}.{key} is {value!r}, which is not supported.")
