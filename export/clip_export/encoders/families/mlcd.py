"""MLCD (An et al. 2024, arXiv:2407.17331): a pre-norm ViT of images alone, whose positions are rotations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clip_export.encoders.families.family import Family, ImageTower


def _rotation(tower: Any, size: int) -> Tensor:
    """Rows and columns turn a quarter of a head's channels each; the class token's angles are learnt."""
    places = torch.arange(size // tower.config.patch_size)
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    frequencies = tower.vision_rotary_embedding.inv_freq
    patches = torch.cat([torch.outer(axis.flatten(), frequencies) for axis in (rows, columns)], dim=1)
    angles = torch.cat([tower.class_pos_emb, patches]).tile(2)
    return torch.stack([angles.cos(), angles.sin()])


MLCD = Family(
    name="mlcd",
    model_types=("mlcd", "mlcd_vision_model"),
    architectures=("MLCDVisionModel",),
    image=ImageTower(
        processor="CLIPImageProcessor", pooling="class", pre_norm=True, rotation=_rotation, can_finetune=False
    ),
)
