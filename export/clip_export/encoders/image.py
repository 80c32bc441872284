"""A frozen image encoder from a transformers checkpoint, unpatched: training uses it, parity is measured against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from clip_export.encoders.checkpoint import Checkpoint, encoder_name, reading
from clip_export.encoders.families import Family
from clip_export.encoders.processors import load_processor, preprocessing_of
from clip_toolkit.errors import EncoderError
from clip_toolkit.spec.classifier import EncoderSpec, Preprocessing

FEATURES = ("pooled", "projected")
"""What the head may read: the tower's pooled output, or its projection into the space shared with text."""


@dataclass(frozen=True)
class Encoder:
    """An image tower and everything around it.

    Attributes:
        id: hub id or path of a local folder, as it was asked for.
        revision: commit of the checkpoint on the hub; of a local folder the SHA-256 of its content.
        family: the encoder's family.
        feature: one of `FEATURES`.
        tower: the transformers vision module, float32, frozen, in evaluation mode.
        projection: the checkpoint's image projection, if the feature is ``projected`` and the family has one.
        projects_first_token: the projection reads the first token of the last hidden state (BLIP retrieval) instead of
            the pooled output.
        processor: the checkpoint's image processor (Pillow backend).
        preprocessing: the processor's rule.
    """

    id: str
    revision: str | None
    family: Family
    feature: str
    tower: nn.Module = field(repr=False)
    projection: nn.Linear | None = field(repr=False)
    projects_first_token: bool
    processor: Any = field(repr=False)
    preprocessing: Preprocessing

    @classmethod
    def from_pretrained(cls, encoder: str, revision: str | None = None, feature: str = "pooled") -> Encoder:
        """Load an encoder.

        Args:
            encoder: hub id, such as ``openai/clip-vit-base-patch32``, or a local folder in transformers format.
            revision: branch, tag or commit on the hub.
            feature: one of `FEATURES`.

        Raises:
            EncoderError: it cannot be found or loaded, weights are missing, or its kind or options are not supported.
        """
        if feature not in FEATURES:
            raise EncoderError(f"feature: expected one of {', '.join(FEATURES)}, got {feature!r}")
        checkpoint = Checkpoint.find(encoder, revision, "preprocessor_config.json")
        with reading(encoder, revision):
            processor = load_processor(checkpoint.source, checkpoint.revision)
        model = checkpoint.model("image", lambda name: _is_of_image_tower(name, checkpoint.architecture))
        preprocessing = _preprocessing(processor, encoder)
        tower = getattr(model, "vision_model", model)
        projection = (
            _projection(model, encoder) if feature == "projected" and checkpoint.family.has_projection else None
        )
        _check_tower(tower, preprocessing, encoder)
        return cls(
            id=encoder,
            revision=checkpoint.commit,
            family=checkpoint.family,
            feature=feature,
            tower=tower,
            projection=projection,
            projects_first_token=projection is not None and hasattr(model, "vision_proj"),
            processor=processor,
            preprocessing=preprocessing,
        )

    @property
    def dim(self) -> int:
        """Channels of the feature."""
        return self.projection.out_features if self.projection is not None else self.tower.config.hidden_size

    def features(self, pixel_values: Tensor) -> Tensor:
        """The feature of a batch, by the unpatched transformers modules.

        Args:
            pixel_values: float32 ``[batch, 3, size, size]``, normalised by `processor`.

        Returns:
            float32 ``[batch, dim]``.
        """
        outputs = self.tower(pixel_values=pixel_values)
        if self.projection is None:
            return outputs.pooler_output
        return self.projection(outputs.last_hidden_state[:, 0] if self.projects_first_token else outputs.pooler_output)

    def spec(self) -> EncoderSpec:
        """What the model file says of the encoder. Of a local folder only the name is kept."""
        return EncoderSpec(encoder_name(self.id), self.revision, self.family.name, self.feature, self.dim)


def _is_of_image_tower(weight: str, architecture: str) -> bool:
    return "vis" in weight or architecture.endswith("VisionModel")


def _preprocessing(processor: Any, encoder: str) -> Preprocessing:
    try:
        return preprocessing_of(processor)
    except EncoderError as error:
        raise EncoderError(f"{encoder}: {error}") from error


def _projection(model: nn.Module, encoder: str) -> nn.Linear:
    for name in ("visual_projection", "vision_proj"):
        if hasattr(model, name):
            return getattr(model, name)
    raise EncoderError(f"{encoder}: {type(model).__name__} has no image projection. Use --feature pooled.")


def _check_tower(tower: nn.Module, preprocessing: Preprocessing, encoder: str) -> None:
    if getattr(tower, "use_head", True) is False:
        raise EncoderError(f"{encoder}: the image tower has no pooling head (vision_use_head is false).")
    if tower.config.image_size != preprocessing.size:
        raise EncoderError(
            f"{encoder}: the image tower takes {tower.config.image_size} pixels a side, but its image processor makes "
            f"{preprocessing.size}. Check preprocessor_config.json."
        )
