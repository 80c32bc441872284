"""MetaCLIP 2 (Chuang et al. 2025, arXiv:2507.22062): CLIP's towers with a multilingual vocabulary."""

from __future__ import annotations

from clip_export.encoders.families.family import Family, ImageTower, TextTower

METACLIP2 = Family(
    name="metaclip2",
    model_types=("metaclip_2", "metaclip_2_vision_model"),
    architectures=("MetaClip2Model", "MetaClip2VisionModel", "MetaClip2VisionModelWithProjection"),
    image=ImageTower(processor="CLIPImageProcessor", pooling="class", projection="visual_projection", pre_norm=True),
    text=TextTower(
        architecture="MetaClip2Model",
        switches=lambda config: {"causal": True, "pooling": "end", "end": config.eos_token_id},
        projection="text_projection",
    ),
)
