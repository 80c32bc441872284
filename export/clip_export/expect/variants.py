"""Other ways in which a notebook may have come to its answers, each computed as it would have been there."""

from __future__ import annotations

import copy
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn

from clip_export.encoders.image import Encoder
from clip_export.expect.answers import Rows
from clip_export.expect.resizes import RESIZES
from clip_export.proof.reference import pixel_values

NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation of values from 0 to 1."""

FEATURES: dict[str, Callable[[Any], Tensor]] = {
    "class": lambda outputs: outputs.last_hidden_state[:, 0],
    "mean": lambda outputs: outputs.last_hidden_state.mean(dim=1),
}
"""What else people take for the feature, of a transformers vision model's outputs."""


Heads = Mapping[tuple[str, ...], nn.Module]


@dataclass(frozen=True)
class Variant:
    """What a notebook may have done. The default is what the exported file does.

    Attributes:
        orientation: whether EXIF's was applied.
        bgr: whether the channels were in OpenCV's order.
        resize: a name of `clip_export.expect.resizes.RESIZES`, or None.
        normalisation: a name of `NORMALISATIONS`, or None.
        feature: ``pooled``, ``projected`` or a name of `FEATURES`, or None.
        precision: of the whole network, or None for float32.
        head: a key of `Subject.heads`.
    """

    orientation: bool = True
    bgr: bool = False
    resize: str | None = None
    normalisation: str | None = None
    feature: str | None = None
    precision: torch.dtype | None = None
    head: tuple[str, ...] = ()

    def combined(self, other: Variant) -> Variant | None:
        """Both at once; None if they are about the same thing."""
        mine, theirs = self.changes, other.changes
        head = self.head + other.head
        common = (set(mine) & set(theirs)) - {"head"}
        return None if common else replace(self, **theirs | {"head": head})

    @property
    def changes(self) -> dict[str, Any]:
        """The attributes that are not as by default."""
        return {item.name: value for item in fields(self) if (value := getattr(self, item.name)) != item.default}


AS_EXPORTED = Variant()
"""What the exported file does."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What is to give the notebook's answers: an encoder and a head, and the rows that it is tried on.

    Attributes:
        encoder: the image encoder.
        heads: the head as it was exported, under no option, and others that its weights allow, by the options of
            ``clip-export`` that ask for them.
        images: paths or encoded images; empty if there are features.
        features: float32 ``[n, dim]``, or None.
    """

    encoder: Encoder
    heads: Heads
    images: Sequence[str | bytes]
    features: NDArray[np.float32] | None = None
    _seen: dict[Variant, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def logits(self, variant: Variant) -> Rows:
        """float64 ``[n, outputs]``."""
        features = self._features(replace(variant, head=()))
        head = self.heads[variant.head]
        with torch.inference_mode():
            if variant.precision is not None:
                head, features = copy.deepcopy(head).to(variant.precision), features.to(variant.precision)
            logits: Tensor = head(features)
            return logits.double().numpy()

    def _features(self, variant: Variant) -> Tensor:
        if self.features is not None:
            return torch.from_numpy(self.features)
        if variant not in self._seen:
            with torch.inference_mode():
                pixels = torch.cat([self._pixels(image, variant) for image in self.images])
                self._seen[variant] = self._feature(pixels, variant)
        return self._seen[variant]

    def _feature(self, pixels: Tensor, variant: Variant) -> Tensor:
        encoder = self.encoder
        if variant.precision is not None:
            return self._rounded(variant.precision).features(pixels.to(variant.precision))
        if variant.feature in FEATURES:
            return FEATURES[variant.feature](encoder.tower(pixel_values=pixels))
        if variant.feature is not None:
            return self.other_feature.features(pixels)
        return encoder.features(pixels)

    @functools.cached_property
    def other_feature(self) -> Encoder:
        """The same tower with the other one of the pooled and the projected feature.

        Raises:
            EncoderError: the checkpoint has no projection.
        """
        encoder = self.encoder
        other = "pooled" if encoder.feature == "projected" else "projected"
        revision = None if Path(encoder.id).exists() else encoder.revision
        loaded = Encoder.from_pretrained(encoder.id, revision, other, encoder.checkpoint.open_clip_model)
        return replace(loaded, tower=encoder.tower)

    @functools.cache  # noqa: B019 (a subject lives for one diagnosis)
    def _rounded(self, precision: torch.dtype) -> Encoder:
        tower, projection = copy.deepcopy((self.encoder.tower, self.encoder.projection))
        return replace(
            self.encoder,
            tower=tower.to(precision),
            projection=None if projection is None else projection.to(precision),
        )

    def _pixels(self, image: str | bytes, variant: Variant) -> Tensor:
        content = Path(image).read_bytes() if isinstance(image, str) else image
        if set(variant.changes) <= {"feature", "precision"}:
            return pixel_values(self.encoder, content)
        opened = Image.open(io.BytesIO(content))
        picture = (ImageOps.exif_transpose(opened) if variant.orientation else opened).convert("RGB")
        rule = self.encoder.preprocessing
        if variant.bgr:
            picture = Image.fromarray(np.ascontiguousarray(np.asarray(picture)[..., ::-1]))
        if variant.resize is None:
            scaled = pixel_values(self.encoder, _png(picture))[0] * _channels(rule.std) + _channels(rule.mean)
            pixels = scaled / rule.scale
        else:
            pixels = RESIZES[variant.resize](picture, rule)
        mean, std = NORMALISATIONS.get(variant.normalisation or "", (rule.mean, rule.std))
        scale = rule.scale if variant.normalisation is None else 1 / 255
        return ((pixels * scale - _channels(mean)) / _channels(std))[None]


def _channels(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
