"""Full-size encoders built from their configurations, with random weights: speed does not depend on the values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
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
        model: makes the transformers model.
        processor: makes its image processor.
    """

    title: str
    family: str
    model: Callable[[], transformers.PreTrainedModel]
    processor: Callable[[], object]


def _clip(width: int, depth: int, heads: int, patch: int, projection: int) -> transformers.PreTrainedModel:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            patch_size=patch,
            image_size=224,
            projection_dim=projection,
        )
    )


def _siglip() -> transformers.PreTrainedModel:
    return SiglipVisionModel(SiglipVisionConfig(image_size=224, patch_size=16))


def _blip() -> transformers.PreTrainedModel:
    text = {"num_hidden_layers": 1}  # the text decoder is never run
    return BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config={"image_size": 384}))


SUBJECTS = {
    "b32": Subject("CLIP ViT-B/32", "clip", lambda: _clip(768, 12, 12, 32, 512), CLIPImageProcessor),
    "b16": Subject("CLIP ViT-B/16", "clip", lambda: _clip(768, 12, 12, 16, 512), CLIPImageProcessor),
    "l14": Subject("CLIP ViT-L/14", "clip", lambda: _clip(1024, 24, 16, 14, 768), CLIPImageProcessor),
    "siglip": Subject("SigLIP ViT-B/16", "siglip", _siglip, SiglipImageProcessor),
    "blip": Subject("BLIP ViT-B/16 at 384", "blip", _blip, BlipImageProcessor),
}
"""By the names that ``bench/run.py --only`` takes."""


def save_checkpoint(subject: Subject, folder: Path) -> Path:
    """Write the encoder in transformers format, unless it is there already."""
    if not (folder / "preprocessor_config.json").is_file():
        torch.manual_seed(0)
        subject.model().save_pretrained(folder)
        subject.processor().save_pretrained(folder)
    return folder
