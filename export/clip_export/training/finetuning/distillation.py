"""What a cut encoder is to come near to: the same feature of the whole one, on images with labels and without.

The student is the teacher's own first blocks, and its feature is as wide, so that nothing stands between the two
(Romero et al. 2015, https://arxiv.org/abs/1412.6550, need a layer there).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from clip_export.encoders.image import Encoder
from clip_export.features.images import Features
from clip_toolkit.errors import DatasetError, EncoderError
from clip_toolkit.images.folder import ImageListing

Encode = Callable[[Sequence[Path], int], Features]
"""Runs the whole encoder over files, in a view of them; see `clip_export.features.augment.augmented`."""


class Unlabelled(NamedTuple):
    """Images without labels.

    Attributes:
        files: the image files.
        contents: SHA-256 of each, in hexadecimal.
        features: float32 ``[n, dim]``, of the whole encoder.
        notes: what is left out, one line each.
    """

    files: list[Path]
    contents: list[str]
    features: Tensor
    notes: list[str]


def whole_encoder(encoder: Encoder) -> Encoder:
    """Return the encoder that reads the same tokens after its last block.

    Raises:
        EncoderError: this one does already, or reads no tokens.
    """
    tokens, depth = encoder.tokens, encoder.blocks.depth
    if tokens is None or tokens.depth == depth:
        raise EncoderError(
            f"{encoder.id}: {encoder.feature} is made of all {depth} blocks. Name an earlier one with --feature, such "
            f"as class+mean@{max(1, depth // 2)}, or leave out --distil."
        )
    return replace(encoder, feature=str(replace(tokens, depth=depth)))


def read_unlabelled(folder: Path, encode: Encode, labelled: Collection[str], *, all_files: bool = False) -> Unlabelled:
    """Read a folder of images, without those that have a label or are held out.

    Args:
        folder: of images, at any depth.
        encode: runs the whole encoder.
        labelled: SHA-256 of the contents of all images of the data set, in hexadecimal.
        all_files: take files of any suffix.

    Raises:
        DatasetError: it is no folder, or no image is left.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: is not a folder. Name one with images.")
    listing = ImageListing(all_files=all_files)
    files = [Path(name) for name in listing.images(folder)]
    features = encode(files, 0) if files else None
    if features is None or not features.kept:
        raise DatasetError(f"{folder}: none of {len(files)} files can be read as an image. Name a folder with images.")
    seen = set(labelled)
    new = [number for number, content in enumerate(features.contents) if content not in seen]
    if not new:
        raise DatasetError(f"{folder}: all {len(features.kept)} images are in the data set. Leave out --unlabelled.")
    known = len(features.kept) - len(new)
    return Unlabelled(
        [files[features.kept[number]] for number in new],
        [features.contents[number] for number in new],
        features.values[new],
        [
            *listing.notes(),
            *(f"skipped: {error}" for error in features.errors),
            *([f"{folder}: {known} images are in the data set, and left out here"] if known else []),
        ],
    )
