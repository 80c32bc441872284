"""AltCLIP (Chen et al. 2022, arXiv:2211.06679): CLIP's image tower, and an XLM-RoBERTa that reads nine languages."""

from __future__ import annotations

from typing import Any

from clip_export.encoders.families.bert import BERT_NAMES, BERT_SWITCHES
from clip_export.encoders.families.family import Family, ImageTower, TextTower


def _switches(config: Any) -> dict[str, Any]:
    return BERT_SWITCHES | {"final_norm": True, "padding": config.pad_token_id}


def _context(config: Any) -> int:
    """Positions count from behind the padding token's number: fairseq's rule, which RoBERTa was trained with."""
    return int(config.max_position_embeddings - config.pad_token_id - 1)


ALTCLIP = Family(
    name="altclip",
    model_types=("altclip", "altclip_vision_model"),
    architectures=("AltCLIPModel", "AltCLIPVisionModel"),
    image=ImageTower(processor="CLIPImageProcessor", pooling="class", projection="visual_projection", pre_norm=True),
    text=TextTower(
        architecture="AltCLIPModel",
        switches=_switches,
        projection="text_projection",
        transformation="transformation",
        names={r"^roberta\.": "", r"^pre_LN\.": "final_layer_norm."} | BERT_NAMES,
        context=_context,
    ),
)
