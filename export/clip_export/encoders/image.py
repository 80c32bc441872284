"""A frozen image encoder from a transformers checkpoint, unpatched: training uses it, parity is measured against it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clip_export.encoders.checkpoint import Checkpoint, encoder_name
from clip_export.encoders.families import Family
from clip_export.encoders.families.family import BlockSettings
from clip_export.encoders.feature_names import POOLED, PROJECTED, TokenFeature, token_feature
from clip_export.encoders.input_size import check_input_size, resize_positions, resize_processor
from clip_export.encoders.open_clip_model import OpenClipModel
from clip_export.encoders.open_clip_processor import OpenClipProcessor
from clip_export.encoders.processors import load_processor, preprocessing_of
from clip_export.encoders.tokens import all_depths, check_tokens, pool_tokens, poolings_of, tokens_after
from clip_export.encoders.tower_checks import check_tower
from clip_toolkit.errors import EncoderError
from clip_toolkit.spec.classifier import EncoderSpec, Preprocessing


@dataclass(frozen=True)
class Encoder:
    """An image tower and everything around it.

    Attributes:
        id: hub id or path of a local folder or bare file, as it was asked for.
        revision: commit of the checkpoint on the hub; of a local one the SHA-256 of its content.
        family: the encoder's family.
        feature: what the head reads: ``pooled`` (the tower's own output), ``projected`` (that in the space shared with
            text), or tokens after a block, as of `clip_export.encoders.feature_names.TokenFeature`.
        tower: the transformers vision module, float32, frozen, in evaluation mode.
        projection: the checkpoint's image projection, if the feature is ``projected`` and the family has one.
        processor: the checkpoint's image processor (Pillow backend).
        preprocessing: the processor's rule.
        checkpoint: where it came from.
        input_size: pixels of a side, where that is not the checkpoint's own.
        query: float32 ``[width]``, of a feature with learnt pooling; None where it is not learnt yet, and the mean
            stands for it.
    """

    id: str
    revision: str | None
    family: Family
    feature: str
    tower: Any = field(repr=False)  # transformers declares no parts of its modules
    projection: nn.Linear | None = field(repr=False)
    processor: Any = field(repr=False)
    preprocessing: Preprocessing
    checkpoint: Checkpoint = field(repr=False)
    input_size: int | None = None
    query: Tensor | None = field(default=None, repr=False)

    @classmethod
    def from_pretrained(
        cls,
        encoder: str,
        revision: str | None = None,
        feature: str = POOLED,
        open_clip_model: OpenClipModel | None = None,
        input_size: int | None = None,
    ) -> Encoder:
        """Load an encoder.

        Args:
            encoder: hub id, such as ``openai/clip-vit-base-patch32``, or a local folder in transformers or OpenCLIP
                format, or a bare file of OpenCLIP's weights.
            revision: branch, tag or commit on the hub.
            feature: ``pooled``, ``projected``, or of a depth, such as ``class+mean@6``.
            open_clip_model: of a bare file.
            input_size: pixels of a side that its images are to have, if not those it was trained at.

        Raises:
            EncoderError: it cannot be found or loaded, weights are missing, its kind or options are not supported, or
                it has no such feature.
        """
        try:
            tokens = token_feature(feature)
        except ValueError as error:
            raise EncoderError(f"feature: {error}") from error
        checkpoint = Checkpoint.find(encoder, revision, open_clip_model)
        rules = checkpoint.family.image
        processor, preprocessing = _processor(checkpoint)
        checkpoint.check_blocks("image")
        model = checkpoint.model("image", lambda name: _is_of_image_tower(name, checkpoint))
        tower = getattr(model, rules.module, model)
        projection = _projection(model, rules.projection, encoder) if feature == PROJECTED else None
        check_tower(tower, checkpoint, preprocessing)
        if tokens is not None:
            check_tokens(tokens, checkpoint, rules.settings(tower.config).depth)
        if input_size == preprocessing.size and not preprocessing.patch:
            input_size = None
        if input_size is not None:
            check_input_size(input_size, tower, checkpoint)
            processor = resize_processor(processor, input_size)
            preprocessing = preprocessing_of(processor)
            if not rules.takes_any_size:
                resize_positions(tower, input_size)
        return cls(
            id=encoder,
            revision=checkpoint.commit,
            family=checkpoint.family,
            feature=feature,
            tower=tower,
            projection=projection,
            processor=processor,
            preprocessing=preprocessing,
            checkpoint=checkpoint,
            input_size=input_size,
        )

    @property
    def tokens(self) -> TokenFeature | None:
        """The feature, if it is one of a depth."""
        return token_feature(self.feature)

    @property
    def blocks(self) -> BlockSettings:
        """Sizes of the tower's blocks, all of them."""
        return self.family.image.settings(self.tower.config)

    @property
    def dim(self) -> int:
        """Channels of the feature."""
        if self.tokens is not None:
            return len(self.tokens.poolings) * self.blocks.width
        return self.blocks.width if self.projection is None else self.projection.out_features

    @property
    def makes_all_depths(self) -> bool:
        """Whether one pass makes the features of all depths: they are all made alike, unless a query was learnt."""
        return self.tokens is not None and self.query is None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of what one pass makes of an image: the feature, or with `makes_all_depths` those of all depths."""
        if not self.makes_all_depths:
            return (self.dim,)
        return self.blocks.depth, len(poolings_of(self.family.image)), self.blocks.width

    @property
    def reads_first_token(self) -> bool:
        """Whether the feature is made of the first token of the last hidden state, not of the pooled output."""
        return self.projection is not None and self.family.image.projects_first_token

    @property
    def notes(self) -> Iterator[str]:
        """What is assumed of the checkpoint, one line each."""
        yield from self.checkpoint.card_problems
        bare = self.checkpoint.bare_file
        if bare is not None:
            yield f"assumed: {bare.file.name} is of the model and has the preprocessing of {bare.where}"
        if isinstance(self.processor, OpenClipProcessor):
            yield "assumed: images with a palette or transparency become RGB before the resize; in open_clip, after it"
        if self.family.image.in_pillow:
            yield (
                f"assumed: the resize is Pillow's; that of transformers' {self.family.image.processor} is "
                "torchvision's, which gives up to one step of 1/255 more or less"
            )
        if self.input_size is not None:
            yield f"input of {self.input_size} pixels a side, for which the table of positions is interpolated"
        if self.tokens is not None:
            yield (
                f"{self.feature}: tokens after block {self.tokens.depth} of {self.blocks.depth}, pooled and normalised "
                "without the encoder's own weights, which are those of its last block"
            )

    def features(self, pixel_values: Tensor) -> Tensor:
        """Compute the feature of a batch by the unpatched transformers modules.

        Args:
            pixel_values: float32 ``[batch, 3, size, size]``, normalised by `processor`; of families with ``naflex``
                ``[batch, 3, height, width]``, of whole patches.

        Returns:
            float32 ``[batch, dim]``.
        """
        return self.feature_of(self.rows(pixel_values))

    def rows(self, pixel_values: Tensor) -> Tensor:
        """Compute what one pass makes of a batch: float32 ``[batch, *row_shape]``."""
        if self.makes_all_depths:
            return all_depths(self.tower, self.family.image, pixel_values)
        if self.tokens is not None:
            return self.read_tokens(self.last_tokens(pixel_values))
        if self.family.image.naflex:
            outputs = self.tower(*_padded_patches(pixel_values, self.preprocessing))
        else:
            outputs = self.tower(pixel_values=pixel_values)
        if self.family.image.pooling == "mean":
            pooled = self.tower.post_layernorm(outputs.last_hidden_state[:, 1:].mean(dim=1))
        else:
            pooled = outputs.last_hidden_state[:, 0] if self.reads_first_token else outputs.pooler_output
        feature: Tensor = pooled if self.projection is None else self.projection(pooled)
        return feature

    def feature_of(self, rows: Tensor) -> Tensor:
        """Select the feature ``[batch, dim]`` from what one pass makes, ``[batch, *row_shape]``."""
        if self.tokens is None or not self.makes_all_depths:
            return rows
        names = poolings_of(self.family.image)
        read = [names.index(name) for name in self.tokens.unlearnt.poolings]
        return rows[:, self.tokens.depth - 1, read].flatten(1)

    def last_tokens(self, pixel_values: Tensor) -> Tensor:
        """Compute the tokens that a feature of a depth is made of: float32 ``[batch, tokens, width]``."""
        assert self.tokens is not None
        return tokens_after(self.tower, self.family.image, self.tokens.depth, pixel_values)

    def read_tokens(self, tokens: Tensor) -> Tensor:
        """Make a feature of a depth ``[batch, dim]`` from the tokens after its block, ``[batch, tokens, width]``."""
        assert self.tokens is not None
        return pool_tokens(tokens, self.tower, self.family.image, self.tokens.poolings, self.query).flatten(1)

    def spec(self) -> EncoderSpec:
        """Return what the model file says of the encoder. Of a local folder only the name is kept."""
        name, base, licenses = encoder_name(self.id), self.checkpoint.base_name, self.checkpoint.licenses
        return EncoderSpec(name, self.revision, self.family.name, self.feature, self.dim, base, licenses)


def _processor(checkpoint: Checkpoint) -> tuple[Any, Preprocessing]:
    try:
        settings, default = checkpoint.open_clip_settings, checkpoint.family.image.processor
        processor = OpenClipProcessor.of(settings) if settings else load_processor(checkpoint.source, default)
        return processor, preprocessing_of(processor)
    except EncoderError as error:
        raise EncoderError(f"{checkpoint.id}: {error}") from error


def input_size_of(checkpoint: Checkpoint, rule: Preprocessing) -> int | None:
    """Return the input size that a rule of preprocessing gives a checkpoint, or None for the checkpoint's own.

    Raises:
        EncoderError: it is the rule of the checkpoint at no size.
    """
    processor, own = _processor(checkpoint)
    if rule == own:
        return None
    if preprocessing_of(resize_processor(processor, rule.size)) != rule:
        raise EncoderError(
            f"{checkpoint.id}: its image processor does not prepare images as they were ({rule.mode}, {rule.resize} to "
            f"{rule.size} pixels, {rule.resample}). Name the encoder that has read them."
        )
    return rule.size


def _is_of_image_tower(weight: str, checkpoint: Checkpoint) -> bool:
    rules = checkpoint.family.image
    own = tuple(filter(None, (f"{rules.module}.", rules.projection)))
    alone = checkpoint.family.text is None or checkpoint.architecture.endswith("VisionModel")
    return alone or weight.startswith(own)


def _projection(model: nn.Module, name: str | None, encoder: str) -> nn.Linear | None:
    if name is None:
        return None
    if not hasattr(model, name):
        raise EncoderError(f"{encoder}: {type(model).__name__} has no image projection. Use --feature pooled.")
    projection: nn.Linear = getattr(model, name)
    return projection


def _padded_patches(values: Tensor, rule: Preprocessing) -> tuple[Tensor, Tensor, Tensor]:
    """From ``[batch, 3, height, width]`` to what ``Siglip2ImageProcessor`` makes: patches, their mask, their grid."""
    batch, channels, height, width = values.shape
    rows, columns = height // rule.patch, width // rule.patch
    tiles = values.reshape(batch, channels, rows, rule.patch, columns, rule.patch)
    patches = tiles.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)
    missing = rule.max_patches - rows * columns
    mask = torch.ones(batch, rows * columns, dtype=torch.int32, device=values.device)
    grid = torch.tensor([[rows, columns]] * batch)
    return functional.pad(patches, (0, 0, 0, missing)), functional.pad(mask, (0, missing)), grid
