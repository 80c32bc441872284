"""DINOv3's ViTs (Simeoni et al. 2025, arXiv:2508.10104): registers, scaled residuals, and rotations for positions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from clip_export.encoders.families.dinov2 import DINOV2_NAMES
from clip_export.encoders.families.family import BlockSettings, Family, ImageTower, block_settings

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""ImageNet's, the processor's defaults."""


def _settings(config: Any) -> BlockSettings:
    return replace(block_settings(config), gated=config.use_gated_mlp)


def _rotation(tower: Any, size: int) -> Tensor:
    """Return the tower's own turns of the patches; class token and registers are not turned."""
    cosines, sines = tower.rope_embeddings(torch.zeros(1, 3, size, size))
    prefix = (0, 0, 1 + tower.config.num_register_tokens, 0)
    return torch.stack([functional.pad(cosines, prefix, value=1.0), functional.pad(sines, prefix)])


DINOV3 = Family(
    name="dinov3",
    model_types=("dinov3_vit",),
    architectures=("DINOv3ViTModel",),
    image=ImageTower(
        processor="DINOv3ViTImageProcessor",
        in_pillow={"image_processor_type": "ViTImageProcessor", "image_mean": _MEAN, "image_std": _STD},
        pooling="class",
        names=DINOV2_NAMES
        | {
            r"^embeddings\.patch_embeddings\.": "embeddings.patch_embedding.",
            r"^(model\.)?layer\.": "encoder.layers.",  # the longer one since transformers 5
            r"\.mlp\.up_proj\.": ".mlp.fc1.",
            r"\.mlp\.down_proj\.": ".mlp.fc2.",
            r"^norm\.": "post_layernorm.",
        },
        settings=_settings,
        rotation=_rotation,
        can_finetune=False,
    ),
)
