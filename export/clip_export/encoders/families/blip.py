"""BLIP (Li et al. 2022, arXiv:2201.12086): the text tower of its retrieval checkpoints is a BERT."""

from __future__ import annotations

from clip_export.encoders.families.bert import BERT_NAMES, BERT_SWITCHES
from clip_export.encoders.families.family import Family, ImageTower, TextTower

BLIP = Family(
    name="blip",
    model_types=("blip", "blip_vision_model"),
    architectures=(
        "BlipForConditionalGeneration",
        "BlipForImageTextRetrieval",
        "BlipForQuestionAnswering",
        "BlipModel",
        "BlipVisionModel",
    ),
    image=ImageTower(
        processor="BlipImageProcessor",
        pooling="class",
        projection="vision_proj",
        projects_first_token=True,
        post_norms=2,
        packed_attention=True,
        names={r"\.self_attn\.projection\.": ".self_attn.out_proj."},
    ),
    text=TextTower(
        architecture="BlipForImageTextRetrieval",
        switches=lambda _: BERT_SWITCHES,
        module="text_encoder",
        projection="text_proj",
        reads_first_token=True,
        # Checkpoints leave out the learnt temperature. Training starts from this one: the authors' own
        # models/blip_retrieval.py, temp = 0.07.
        logit_scale=lambda _: 1 / 0.07,
        names=BERT_NAMES,
    ),
)
