"""Full-size encoders built from their configurations, with random weights: speed does not depend on the values.

As a program, ``encoders.py NAME FOLDER`` writes one of `SHAPES`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    Siglip2ImageProcessor,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)


@dataclass(frozen=True)
class Subject:
    """An encoder to measure.

    Attributes:
        title: its name in the tables.
        family: as in `clip_export.encoders.families`.
        model: makes the transformers model; of the family ``timm`` open_clip's.
        processor: makes its image processor.
    """

    title: str
    family: str
    model: Callable[[], transformers.PreTrainedModel]
    processor: Callable[[], object]


def _clip(
    width: int,
    depth: int,
    heads: int,
    patch: int,
    projection: int,
    *,
    activation: str = "quick_gelu",
    size: int = 224,
) -> transformers.PreTrainedModel:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            patch_size=patch,
            image_size=size,
            projection_dim=projection,
            hidden_act=activation,
        )
    )


def _siglip() -> transformers.PreTrainedModel:
    return SiglipVisionModel(SiglipVisionConfig(image_size=224, patch_size=16))


def _blip() -> transformers.PreTrainedModel:
    text = {"num_hidden_layers": 1}  # the text decoder is never run
    return BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config={"image_size": 384}))


def _large_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})


LARGE = Subject("CLIP ViT-L/14-336", "clip", lambda: _clip(1024, 24, 16, 14, 768, size=336), _large_processor)

SUBJECTS = {
    "b32": Subject("CLIP ViT-B/32", "clip", lambda: _clip(768, 12, 12, 32, 512), CLIPImageProcessor),
    "b16": Subject("CLIP ViT-B/16", "clip", lambda: _clip(768, 12, 12, 16, 512), CLIPImageProcessor),
    "l14": Subject("CLIP ViT-L/14", "clip", lambda: _clip(1024, 24, 16, 14, 768), CLIPImageProcessor),
    "siglip": Subject("SigLIP ViT-B/16", "siglip", _siglip, SiglipImageProcessor),
    "blip": Subject("BLIP ViT-B/16 at 384", "blip", _blip, BlipImageProcessor),
}
"""By the names that ``bench/run.py --only`` takes."""


def _naflex() -> transformers.PreTrainedModel:
    return Siglip2VisionModel(Siglip2VisionConfig())


def _timm(name: str) -> Subject:
    """Return open_clip's own module, by the name of its configuration."""

    def model() -> Any:
        from open_clip_features import model_of, settings_of

        return model_of(settings_of(name))

    return Subject(name, "timm", model, dict)


def _dinov3() -> transformers.PreTrainedModel:
    sizes = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "num_register_tokens": 4}
    return DINOv3ViTModel(DINOv3ViTConfig(**sizes))


SHAPES = {
    "b32": Subject("OpenCLIP ViT-B/32-quickgelu", "open_clip", lambda: _clip(768, 12, 12, 32, 512), dict),
    "tiny40": Subject(
        "TinyCLIP ViT-40M/32", "clip", lambda: _clip(512, 12, 8, 32, 512, activation="gelu"), CLIPImageProcessor
    ),
    "tiny8": Subject(
        "TinyCLIP ViT-8M/16", "clip", lambda: _clip(256, 10, 4, 16, 512, activation="gelu"), CLIPImageProcessor
    ),
    "mobileclip": _timm("MobileCLIP2-S0"),
    "eva02": _timm("EVA02-B-16"),
    "pe-core": _timm("PE-Core-B-16"),
    "siglip": SUBJECTS["siglip"],
    "l14": SUBJECTS["l14"],
    "naflex": Subject("SigLIP 2 NaFlex ViT-B/16, 256 patches", "siglip2", _naflex, Siglip2ImageProcessor),
    "dinov3": Subject("DINOv3 ViT-B/16", "dinov3", _dinov3, dict),
    "h14": Subject("OpenCLIP ViT-H/14", "open_clip", lambda: _clip(1280, 32, 16, 14, 1024, activation="gelu"), dict),
}
"""Encoders that are exported by the commands themselves, with weights of trained scale."""


def save_checkpoint(subject: Subject, folder: Path) -> Path:
    """Write the encoder in transformers format, unless it is there already."""
    if not (folder / "preprocessor_config.json").is_file():
        torch.manual_seed(0)
        subject.model().save_pretrained(folder)
        subject.processor().save_pretrained(folder)
    return folder


def show_every_part(model: torch.nn.Module) -> None:
    """Give random weights the scale of trained ones: norms and biases that a wrong mapping would not survive."""
    for name, parameter in model.named_parameters():
        if "norm" in name or "ln_" in name or "layrnorm" in name or name.endswith("bias"):
            parameter.data += 0.3 * torch.randn_like(parameter)
        elif parameter.ndim >= 2:
            parameter.data += 0.02 * torch.randn_like(parameter)


def save_shape(subject: Subject, folder: Path) -> None:
    """Write an encoder with weights of trained scale, in the format that its authors publish.

    Those of the family ``timm`` need the extra ``openclip``.
    """
    torch.manual_seed(0)
    model = subject.model()
    show_every_part(model)
    if subject.family == "open_clip":
        _save_open_clip(model, folder)
        return
    if subject.family == "timm":
        from open_clip_features import save_model

        save_model(subject.title, model, folder)
        return
    model.save_pretrained(folder)
    processor = subject.processor()
    if subject.family == "dinov3":  # transformers' own class needs torchvision
        (folder / "preprocessor_config.json").write_text(json.dumps(_DINOV3_PROCESSOR))
    else:
        processor.save_pretrained(folder)


_DINOV3_PROCESSOR = {
    "image_processor_type": "DINOv3ViTImageProcessorFast",
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "rescale_factor": 1 / 255,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
}


def _save_open_clip(model: torch.nn.Module, folder: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "export"))
    from safetensors.torch import save_file

    from tiny_open_clip import published

    config = model.config
    vision = {
        "image_size": config.image_size,
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "head_width": config.hidden_size // config.num_attention_heads,
        "patch_size": config.patch_size,
    }
    settings = {"embed_dim": config.projection_dim, "quick_gelu": config.hidden_act == "quick_gelu"}
    content = {"model_cfg": settings | {"vision_cfg": vision}, "preprocess_cfg": {}}
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    weights = {name: tensor.contiguous() for name, tensor in published(model.state_dict()).items()}
    save_file(weights, folder / "open_clip_model.safetensors")


if __name__ == "__main__":
    save_shape(SHAPES[sys.argv[1]], Path(sys.argv[2]))
