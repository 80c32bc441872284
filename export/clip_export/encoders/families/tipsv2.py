"""TIPSv2 (transformers 5.14): DINOv2's image tower with a second class token in place of the registers.

The image's feature is the first class token, which was trained on the captions of the web. The text's is the mean of
its tokens, without the padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from clip_export.encoders.families.dinov2 import DINOV2
from clip_export.encoders.families.family import Family, TextTower


def _embeddings(tower: Any) -> Mapping[str, Tensor]:
    """Scale the tokens as the tower does, and take its sines and cosines for a table like any other."""
    found = tower.embeddings
    return {
        "embeddings.token_embedding.weight": found.token_embedding.weight.detach().float() * found.embed_scale,
        "embeddings.position_embedding.weight": found.position_embedding.weights.float(),
    }


TIPSV2 = Family(
    name="tipsv2",
    model_types=("tipsv2", "tipsv2_vision_model"),
    architectures=("Tipsv2Model", "Tipsv2VisionModel"),
    image=replace(
        DINOV2.image,
        processor="Tipsv2ImageProcessor",
        in_pillow={
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": 448, "width": 448},
            "do_normalize": False,
        },
    ),
    text=TextTower(
        architecture="Tipsv2Model",
        switches=lambda _: {"masked": True, "pooling": "mean"},
        logit_scale=lambda model: 1 / float(model.temperature),
        embeddings=_embeddings,
    ),
)
