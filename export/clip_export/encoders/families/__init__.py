"""The encoder families that can be exported: one module each, and their list."""

from __future__ import annotations

from clip_export.encoders.families.altclip import ALTCLIP
from clip_export.encoders.families.blip import BLIP
from clip_export.encoders.families.chinese_clip import CHINESE_CLIP
from clip_export.encoders.families.clip import CLIP
from clip_export.encoders.families.clipa import CLIPA
from clip_export.encoders.families.dinov2 import DINOV2
from clip_export.encoders.families.dinov3 import DINOV3
from clip_export.encoders.families.family import Family
from clip_export.encoders.families.metaclip2 import METACLIP2
from clip_export.encoders.families.mlcd import MLCD
from clip_export.encoders.families.siglip import SIGLIP
from clip_export.encoders.families.siglip2 import SIGLIP2
from clip_export.encoders.families.timm import TIMM
from clip_export.encoders.families.tipsv2 import TIPSV2
from clip_toolkit.errors import EncoderError

__all__ = ["FAMILIES", "Family", "family_of"]

FAMILIES = (CLIP, SIGLIP, SIGLIP2, BLIP, METACLIP2, CHINESE_CLIP, ALTCLIP, CLIPA, DINOV2, DINOV3, MLCD, TIPSV2, TIMM)


def family_of(model_type: str) -> Family:
    """Return the family of a checkpoint.

    Raises:
        EncoderError: no family has this ``model_type``.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.model_types)
    raise EncoderError(f"model_type {model_type!r} is not supported. Supported are: {known}.")
