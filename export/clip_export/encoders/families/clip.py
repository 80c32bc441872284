"""CLIP (Radford et al. 2021, arXiv:2103.00020), and whatever was published in its format."""

from __future__ import annotations

from typing import Any

from clip_export.encoders.families.family import Family, ImageTower, TextTower

_UNKNOWN_END = 2
"""The ``eos_token_id`` of checkpoints from before transformers 4.31, which is not that of their tokenizer."""


def text_switches(config: Any) -> dict[str, Any]:
    """Read from the end mark, which has the largest number where the configuration does not know it."""
    if config.eos_token_id == _UNKNOWN_END:
        return {"causal": True, "pooling": "largest"}
    return {"causal": True, "pooling": "end", "end": config.eos_token_id}


CLIP = Family(
    name="clip",
    model_types=("clip", "clip_vision_model"),
    architectures=("CLIPModel", "CLIPVisionModel", "CLIPVisionModelWithProjection", "CLIPForImageClassification"),
    image=ImageTower(
        processor="CLIPImageProcessor",
        pooling="class",
        projection="visual_projection",
        pre_norm=True,
        optimum="CLIPVisionModel",
    ),
    text=TextTower(architecture="CLIPModel", switches=text_switches, projection="text_projection"),
)
