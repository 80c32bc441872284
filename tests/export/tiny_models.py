"""Checkpoints of every encoder family, tiny and with random weights, written as transformers writes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    BitImageProcessor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipImageProcessor,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessor,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Model,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    MetaClip2Config,
    MetaClip2Model,
    MLCDVisionConfig,
    MLCDVisionModel,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

import tiny_tokenizers

# The plain name needs torchvision since transformers 5.
Siglip2ImageProcessor = getattr(transformers, "Siglip2ImageProcessorPil", None) or transformers.Siglip2ImageProcessor

SIZE = 32
NAFLEX_PATCHES = 18

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


def _metaclip2() -> transformers.PreTrainedModel:
    text = _TEXT | tiny_tokenizers.CLIP_TOKENS
    config = MetaClip2Config(text_config=text, vision_config=_VISION, projection_dim=24)
    return MetaClip2Model(config)


def _chinese_clip() -> transformers.PreTrainedModel:
    text = _TEXT | tiny_tokenizers.BLIP_TOKENS
    return ChineseCLIPModel(ChineseCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=24))


def _altclip() -> transformers.PreTrainedModel:
    tokens = tiny_tokenizers.ROBERTA_TOKENS
    positions = tiny_tokenizers.CONTEXT + tokens["pad_token_id"] + 1
    text = _TEXT | tokens | {"max_position_embeddings": positions, "project_dim": 20}
    return AltCLIPModel(AltCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=24))


_MAKERS |= {
    "altclip": (_altclip, lambda: CLIPImageProcessor(**_CROP), tiny_tokenizers.save_roberta),
    "mlcd": (
        lambda: MLCDVisionModel(MLCDVisionConfig(**_VISION | {"num_hidden_layers": 2})),
        lambda: CLIPImageProcessor(**_CROP),
        lambda _: None,
    ),
    "metaclip2": (_metaclip2, lambda: CLIPImageProcessor(**_CROP), tiny_tokenizers.save_clip),
    "chinese-clip": (
        _chinese_clip,
        lambda: ChineseCLIPImageProcessor(**_SQUASH, do_center_crop=False),
        tiny_tokenizers.save_blip,
    ),
}


def _dinov3(**options: object) -> transformers.PreTrainedModel:
    sizes = _VISION | {"image_size": SIZE + 16, "num_register_tokens": 3}
    return DINOv3ViTModel(DINOv3ViTConfig(**sizes | options))


def _save_dinov3_processor(folder: Path) -> None:
    """As the checkpoints have it. transformers' own class needs torchvision."""
    content = {"image_processor_type": "DINOv3ViTImageProcessorFast", "resample": 2, "rescale_factor": 1 / 255}
    content |= dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True) | _SQUASH
    (folder / "preprocessor_config.json").write_text(json.dumps(content))


_MAKERS |= {
    "dinov3": (_dinov3, lambda: None, _save_dinov3_processor),
    "dinov3-gated": (
        lambda: _dinov3(num_hidden_layers=2, use_gated_mlp=True, hidden_act="silu", mlp_bias=False, proj_bias=False),
        lambda: None,
        _save_dinov3_processor,
    ),
}


def _naflex() -> transformers.PreTrainedModel:
    """Its table of positions is of 4 x 4 patches, its images have up to `NAFLEX_PATCHES`."""
    vision = {name: value for name, value in _VISION.items() if name != "image_size"}
    vision |= {"num_patches": 16, "num_hidden_layers": 1}
    text = _TEXT | tiny_tokenizers.SIGLIP2_TOKENS | {"projection_size": _VISION["hidden_size"]}
    return Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))


_MAKERS |= {
    "siglip2-naflex": (
        _naflex,
        lambda: Siglip2ImageProcessor(patch_size=_VISION["patch_size"], max_num_patches=NAFLEX_PATCHES),
        tiny_tokenizers.save_siglip2,
    ),
}

RELATED = ("metaclip2", "chinese-clip", "altclip")
"""Families that consist of towers of the others: each is tested where it differs."""


def _dinov2(kind: type[transformers.PreTrainedModel], **options: int) -> transformers.PreTrainedModel:
    """Its table of positions is that of larger images."""
    sizes = {name: value for name, value in _VISION.items() if name != "intermediate_size"}
    return kind(kind.config_class(**sizes | {"image_size": SIZE + 16, "mlp_ratio": 2} | options))


_MAKERS |= {
    name: (maker, lambda: BitImageProcessor(**_CROP | {"size": {"shortest_edge": SIZE + 5}}), lambda _: None)
    for name, maker in {
        "dinov2": lambda: _dinov2(Dinov2Model),
        "dinov2-registers": lambda: _dinov2(Dinov2WithRegistersModel, num_register_tokens=3),
        "dinov2-gated": lambda: _dinov2(Dinov2Model, use_swiglu_ffn=True),
    }.items()
}


def _tipsv2() -> transformers.PreTrainedModel:
    vision = _dinov2(transformers.Tipsv2VisionModel).config
    text = _TEXT | tiny_tokenizers.TIPSV2_TOKENS | {"hidden_size": vision.hidden_size}
    return transformers.Tipsv2Model(transformers.Tipsv2Config(vision_config=vision, text_config=text))


def _save_tipsv2_processor(folder: Path) -> None:
    """As the checkpoints have it. transformers' own class needs torchvision."""
    content = {"image_processor_type": "Tipsv2ImageProcessor", "resample": 2, "rescale_factor": 1 / 255} | _SQUASH
    content |= {"do_resize": True, "do_rescale": True, "do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))


def _save_tipsv2_files(folder: Path) -> None:
    _save_tipsv2_processor(folder)
    tiny_tokenizers.save_tipsv2(folder)


_MAKERS |= {"tipsv2": (_tipsv2, lambda: None, _save_tipsv2_files)}


TOWERS = {
    "CLIPVisionModel": "clip",
    "CLIPVisionModelWithProjection": "clip",
    "SiglipVisionModel": "siglip",
    "Siglip2VisionModel": "siglip2-naflex",
    "BlipVisionModel": "blip",
    "MetaClip2VisionModel": "metaclip2",
    "MetaClip2VisionModelWithProjection": "metaclip2",
    "ChineseCLIPVisionModel": "chinese-clip",
    "AltCLIPVisionModel": "altclip",
    "Tipsv2VisionModel": "tipsv2",
}
"""Classes of image towers saved without their texts, and the checkpoints that hold the same weights."""


def save_checkpoint(name: str, folder: Path) -> Path:
    """Write the checkpoint ``name``, or the tower of a class in `TOWERS` alone, into ``folder`` and return it."""
    whole = TOWERS.get(name, name)
    torch.manual_seed(sum(map(ord, whole)))
    make_model, make_processor, save_files = _MAKERS[whole]
    model = make_model()
    _spread(model)
    (model if name == whole else _tower(name, model)).save_pretrained(folder)
    if (processor := make_processor()) is not None:
        processor.save_pretrained(folder)
    save_files(folder)
    return folder


def _tower(kind: str, whole: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    config = whole.config.vision_config
    if kind.endswith("WithProjection"):
        config.projection_dim = whole.config.projection_dim
    tower = getattr(transformers, kind)(config)
    getattr(tower, "vision_model", tower).load_state_dict(whole.vision_model.state_dict())
    if kind.endswith("WithProjection"):
        tower.visual_projection.load_state_dict(whole.visual_projection.state_dict())
    return tower


def cut_tiny_clip(folder: Path) -> Path:
    """Save `TINY_CLIP` with its first block alone: nine tenths of an export go into tracing the others."""
    model = CLIPModel.from_pretrained(TINY_CLIP)
    model.vision_model.encoder.layers = model.vision_model.encoder.layers[:1]
    model.config.vision_config.num_hidden_layers = 1
    model.save_pretrained(folder)
    shutil.copy(TINY_CLIP / "preprocessor_config.json", folder)
    return folder


def _spread(model: torch.nn.Module) -> None:
    """Give norms and biases, which start at one and zero, values that a wrong mapping would not survive."""
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith(("bias", "lambda1")):
            parameter.data += 0.3 * torch.randn_like(parameter)
        elif parameter.ndim >= 2:
            parameter.data += 0.05 * torch.randn_like(parameter)
