"""Checkpoints of every encoder family, tiny and with random weights, written as transformers writes them."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

SIZE = 32

_VISION = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": 8,
}
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
_SQUASH = {"size": {"height": SIZE, "width": SIZE}}
_CROP = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}


def _clip(activation: str = "quick_gelu") -> transformers.PreTrainedModel:
    vision, text = _VISION | {"hidden_act": activation}, _TEXT | {"hidden_act": activation}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))


def _siglip() -> transformers.PreTrainedModel:
    return SiglipModel(SiglipConfig(text_config=_TEXT, vision_config=_VISION))


def _blip(kind: type[transformers.PreTrainedModel]) -> transformers.PreTrainedModel:
    text = _TEXT | {"encoder_hidden_size": _VISION["hidden_size"]}
    return kind(BlipConfig(text_config=text, vision_config=_VISION, projection_dim=24, image_text_hidden_size=20))


_MAKERS = {
    "clip": (_clip, lambda: CLIPImageProcessor(**_CROP)),
    "clip-gelu": (lambda: _clip("gelu"), lambda: CLIPImageProcessor(**_CROP)),
    "clip-crop": (_clip, lambda: CLIPImageProcessor(**_CROP | {"size": {"shortest_edge": SIZE + 5}})),
    "siglip": (_siglip, lambda: SiglipImageProcessor(**_SQUASH)),
    "siglip2": (_siglip, lambda: SiglipImageProcessor(**_SQUASH, resample=2)),
    "blip": (lambda: _blip(BlipForConditionalGeneration), lambda: BlipImageProcessor(**_SQUASH)),
    "blip-retrieval": (lambda: _blip(BlipForImageTextRetrieval), lambda: BlipImageProcessor(**_SQUASH)),
}

CHECKPOINTS = tuple(_MAKERS)


def save_checkpoint(name: str, folder: Path) -> Path:
    """Write the checkpoint ``name`` into ``folder`` and return it."""
    torch.manual_seed(sum(map(ord, name)))
    make_model, make_processor = _MAKERS[name]
    model = make_model()
    _spread(model)
    model.save_pretrained(folder)
    make_processor().save_pretrained(folder)
    return folder


def _spread(model: torch.nn.Module) -> None:
    """Give norms and biases, which start at one and zero, values that a wrong mapping would not survive."""
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            parameter.data += 0.3 * torch.randn_like(parameter)
        elif parameter.ndim >= 2:
            parameter.data += 0.05 * torch.randn_like(parameter)
