"""The usual reasons why a notebook answers otherwise than the file: what each changes, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from clip_export.expect.variants import AS_EXPORTED, FEATURES, NORMALISATIONS, Subject, Variant
from clip_toolkit.errors import EncoderError

_PROCESSOR = (
    "no option changes the preprocessing, which is the checkpoint's own: load images in the notebook with its "
    "processor (AutoImageProcessor.from_pretrained, use_fast=False in transformers 4, backend='pil' in 5) and save its "
    "answers again; if they change what matters to you, train the head on such features (clip-train does)"
)

_RESIZE_NAMES = {
    "torchvision": "resized tensors as torchvision does, the fast image processors among them",
    "no-antialias": "resized without antialiasing",
    "crop": "cropped by torchvision's rule",
    "bilinear": "resized bilinearly, torchvision's default",
    "squash": "squashed images to a square",
    "squash-bilinear": "squashed images to a square bilinearly, as torchvision's Resize((size, size))",
    "opencv": "resized as OpenCV does, to a square and without antialiasing",
}
_CROP_OR_SQUASH = "resized the shorter edge and cropped the centre"  # where the encoder's own rule is a square
_FEATURE_NAMES = {
    "class": "read the class token of last_hidden_state, before the final normalisation",
    "mean": "read the mean of last_hidden_state",
    "pooled": "read the pooled feature (pooler_output)",
    "projected": "read the projected feature (get_image_features)",
}
_NORMALISATION_NAMES = {
    "imagenet": "normalised pixels with ImageNet's mean and standard deviation",
    "clip": "normalised pixels with CLIP's mean and standard deviation",
    "half": "normalised pixels with 0.5 and 0.5",
    "none": "did not normalise pixels",
}
_HALF = {torch.bfloat16: "bfloat16", torch.float16: "float16"}  # the coarser first: the other holds most of its values


@dataclass(frozen=True)
class Reason:
    """Something that the notebook may have done.

    Attributes:
        text: what, behind "the notebook".
        remedy: what to do about it.
        variant: how it is tried, or nothing changed where it is about what becomes of the logits.
    """

    text: str
    remedy: str
    variant: Variant = AS_EXPORTED


def head_reasons(subject: Subject) -> Iterator[Reason]:
    """Of other heads that its weights allow: these cost nothing to try."""
    for options in subject.heads:
        if len(options) == 1:
            yield Reason(_head_text(*options[0].split()), f"export with {options[0]}", Variant(head=options))


def _head_text(option: str, value: str) -> str:
    if option == "--activation":
        return f"had {value} between the head's layers"
    if option == "--norm-position":
        return f"had the head's normalisation {value} its activation"
    return "divided the feature by its L2 norm" if value == "l2" else "did not normalise the feature"


def image_reasons(subject: Subject, *, rotated: bool) -> Iterator[Reason]:
    """Of what lies before the head.

    Args:
        subject: what the notebook's answers are held against.
        rotated: whether there are images with an EXIF orientation.
    """
    if rotated:
        yield Reason(
            "did not apply the EXIF orientation",
            "open images with ImageOps.exif_transpose(Image.open(path)) in the notebook, as phones' photos need it",
            Variant(orientation=False),
        )
    yield from _feature_reasons(subject)
    yield Reason(
        "read images in BGR order, as OpenCV does", f"convert them to RGB there; {_PROCESSOR}", Variant(bgr=True)
    )
    rule = subject.encoder.preprocessing
    for name, text in _RESIZE_NAMES.items():
        if not (name == "squash" and rule.mode == "squash") and not (name == "bilinear" and rule.resample == name):
            told = _CROP_OR_SQUASH if (name, rule.mode) == ("crop", "squash") else text
            yield Reason(told, _PROCESSOR, Variant(resize=name))
    for name, (mean, std) in NORMALISATIONS.items():
        if max(abs(a - b) for a, b in zip(mean + std, rule.mean + rule.std, strict=True)) > 1e-3:
            yield Reason(_NORMALISATION_NAMES[name], _PROCESSOR, Variant(normalisation=name))


def rounding_reasons() -> Iterator[tuple[Reason, torch.dtype]]:
    """Of a head's file that holds fewer digits than the notebook's head had."""
    for precision, name in _HALF.items():
        reason = Reason(
            f"had weights with more digits than the {name} that they were saved in",
            "save the head in float32, or load its file in the notebook and save the answers of that",
        )
        yield reason, precision


def precision_reasons() -> Iterator[Reason]:
    """Of half precision: it moves every answer a little."""
    for precision, name in _HALF.items():
        yield Reason(
            f"computed in {name}",
            "run it there in float32 (model.float(), no autocast) and save its answers again; or accept the difference "
            "with --expect-tolerance",
            Variant(precision=precision),
        )


def _feature_reasons(subject: Subject) -> Iterator[Reason]:
    encoder = subject.encoder
    try:
        other = subject.other_feature
    except EncoderError:
        other = encoder
    if other.dim == encoder.dim and other.feature != encoder.feature and encoder.family.image.projection is not None:
        yield Reason(
            _FEATURE_NAMES[other.feature], f"export with --feature {other.feature}", Variant(feature=other.feature)
        )
    if encoder.family.image.traced is None and encoder.tower.config.hidden_size == encoder.dim:
        for name in FEATURES:
            yield Reason(
                _FEATURE_NAMES[name], "train the head on pooler_output instead (clip-train)", Variant(feature=name)
            )
