"""Chinese CLIP (Yang et al. 2022, arXiv:2211.01335): CLIP's image tower, and a BERT that reads Chinese."""

from __future__ import annotations

from clip_export.encoders.families.bert import BERT_NAMES, BERT_SWITCHES
from clip_export.encoders.families.family import Family, ImageTower, TextTower

CHINESE_CLIP = Family(
    name="chinese-clip",
    model_types=("chinese_clip", "chinese_clip_vision_model"),
    architectures=("ChineseCLIPModel", "ChineseCLIPVisionModel"),
    image=ImageTower(
        processor="ChineseCLIPImageProcessor", pooling="class", projection="visual_projection", pre_norm=True
    ),
    text=TextTower(
        architecture="ChineseCLIPModel",
        switches=lambda _: BERT_SWITCHES,
        projection="text_projection",
        reads_first_token=True,
        names=BERT_NAMES,
    ),
)
