"""The encoder families that can be exported, and what has to be known of each."""

from __future__ import annotations

from dataclasses import dataclass

from clip_toolkit.errors import EncoderError


@dataclass(frozen=True)
class Family:
    """What has to be known of an encoder family.

    Attributes:
        name: as in `clip_toolkit.spec.classifier.EncoderSpec.family`.
        model_types: values of ``model_type`` in config.json that belong to it.
        architectures: transformers classes that a checkpoint may name.
        text_architecture: the one of them whose text tower shares a space with the image tower.
        pooling: ``class`` or ``attention``, as in `clip_export.graph.vit.ViTConfig`.
        pre_norm: whether a layer normalisation precedes the first block.
        post_norms: how often the final normalisation is applied to the pooled feature.
        has_projection: whether a projected feature exists beside the pooled one; without it both are the same.
    """

    name: str
    model_types: tuple[str, ...]
    architectures: tuple[str, ...]
    text_architecture: str
    pooling: str
    pre_norm: bool = False
    post_norms: int = 1
    has_projection: bool = True


CLIP = Family(
    name="clip",
    model_types=("clip", "clip_vision_model"),
    architectures=("CLIPModel", "CLIPVisionModel", "CLIPVisionModelWithProjection", "CLIPForImageClassification"),
    text_architecture="CLIPModel",
    pooling="class",
    pre_norm=True,
)

# SigLIP2 checkpoints of a fixed resolution are SigLIP models; "siglip2" itself names the variable-resolution ones.
SIGLIP = Family(
    name="siglip",
    model_types=("siglip", "siglip_vision_model"),
    architectures=("SiglipModel", "SiglipVisionModel", "SiglipForImageClassification"),
    text_architecture="SiglipModel",
    pooling="attention",
    has_projection=False,
)

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
    text_architecture="BlipForImageTextRetrieval",
    pooling="class",
    post_norms=2,
)

FAMILIES = (CLIP, SIGLIP, BLIP)


def family_of(model_type: str) -> Family:
    """The family of a checkpoint.

    Raises:
        EncoderError: no family has this ``model_type``.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.model_types)
    raise EncoderError(f"model_type {model_type!r} is not supported. Supported are: {known}.")
