"""Checkpoints of every encoder family, tiny and with random weights, written as transformers writes them."""

from __future__ import annotations

from collections.abc import Callable
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

import tiny_tokenizers

SIZE = 32

TINY_CLIP = Path(__file__).parents[2] / "models" / "tiny-clip"
"""The encoder of the built-in demo model: small, and trained."""

TEXT_FAMILIES = ("clip", "siglip", "siglip2", "blip-retrieval")
LONG_TEXT = "a very " * 40 + "long text"

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
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": tiny_tokenizers.CONTEXT,
}
_SQUASH = {"size": {"height": SIZE, "width": SIZE}}
_CROP = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}


def _clip(activation: str = "quick_gelu", projection: int = 24) -> transformers.PreTrainedModel:
    vision = _VISION | {"hidden_act": activation}
    text = _TEXT | tiny_tokenizers.CLIP_TOKENS | {"hidden_act": activation}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection))


def _siglip(tokens: dict[str, int]) -> transformers.PreTrainedModel:
    text = _TEXT | tokens | {"projection_size": _VISION["hidden_size"]}
    return SiglipModel(SiglipConfig(text_config=text, vision_config=_VISION))


def _blip(kind: type[transformers.PreTrainedModel]) -> transformers.PreTrainedModel:
    text = _TEXT | tiny_tokenizers.BLIP_TOKENS | {"encoder_hidden_size": _VISION["hidden_size"]}
    return kind(BlipConfig(text_config=text, vision_config=_VISION, projection_dim=24, image_text_hidden_size=20))


def _siglip1() -> transformers.PreTrainedModel:
    return _siglip(tiny_tokenizers.SIGLIP_TOKENS)


def _siglip2() -> transformers.PreTrainedModel:
    return _siglip(tiny_tokenizers.SIGLIP2_TOKENS)


_Maker = Callable[[], transformers.PreTrainedModel]

_MAKERS: dict[str, tuple[_Maker, Callable, Callable[[Path], None]]] = {
    "clip": (_clip, lambda: CLIPImageProcessor(**_CROP), tiny_tokenizers.save_clip),
    "clip-gelu": (lambda: _clip("gelu"), lambda: CLIPImageProcessor(**_CROP), tiny_tokenizers.save_clip),
    # Both features have one width, so that a head's shape does not tell which it reads.
    "clip-square": (
        lambda: _clip(projection=_VISION["hidden_size"]),
        lambda: CLIPImageProcessor(**_CROP),
        tiny_tokenizers.save_clip,
    ),
    "clip-crop": (
        _clip,
        lambda: CLIPImageProcessor(**_CROP | {"size": {"shortest_edge": SIZE + 5}}),
        tiny_tokenizers.save_clip,
    ),
    "siglip": (_siglip1, lambda: SiglipImageProcessor(**_SQUASH), tiny_tokenizers.save_siglip),
    "siglip2": (_siglip2, lambda: SiglipImageProcessor(**_SQUASH, resample=2), tiny_tokenizers.save_siglip2),
    "blip": (
        lambda: _blip(BlipForConditionalGeneration),
        lambda: BlipImageProcessor(**_SQUASH),
        tiny_tokenizers.save_blip,
    ),
    "blip-retrieval": (
        lambda: _blip(BlipForImageTextRetrieval),
        lambda: BlipImageProcessor(**_SQUASH),
        tiny_tokenizers.save_blip,
    ),
}

CHECKPOINTS = tuple(_MAKERS)


def save_checkpoint(name: str, folder: Path) -> Path:
    """Write the checkpoint ``name`` into ``folder`` and return it."""
    torch.manual_seed(sum(map(ord, name)))
    make_model, make_processor, save_tokenizer = _MAKERS[name]
    model = make_model()
    _spread(model)
    model.save_pretrained(folder)
    make_processor().save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def _spread(model: torch.nn.Module) -> None:
    """Give norms and biases, which start at one and zero, values that a wrong mapping would not survive."""
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            parameter.data += 0.3 * torch.randn_like(parameter)
        elif parameter.ndim >= 2:
            parameter.data += 0.05 * torch.randn_like(parameter)
