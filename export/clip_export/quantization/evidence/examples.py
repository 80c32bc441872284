"""Images, and the texts that go with them, as the network takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clip_export.quantization.evidence.feeds import Feeds
from clip_export.quantization.evidence.images import Evidence, LabelledImage
from clip_export.samples.pictures import golden_files, proof_files
from clip_export.samples.texts import PROOF_TEXTS
from clip_toolkit import open_image, preprocess
from clip_toolkit.images.preprocess import normalise
from clip_toolkit.spec.classifier import ModelSpec, Preprocessing
from clip_toolkit.text.tokenization import INPUTS, Tokenizer


def tuning_feeds(spec: ModelSpec, evidence: Evidence | None) -> Feeds:
    """Examples to tune on: the calibration images, or drawn ones where there are none."""
    if evidence is not None:
        return feeds_of(evidence.calibration, spec)
    files = drawn_files(spec)
    pixels = [preprocess(open_image(file), spec.preprocessing) for file in files]
    return _feeds(pixels, drawn_texts(spec, len(files)), spec)


def drawn_files(spec: ModelSpec) -> list[bytes]:
    """Image files that stand in for the user's own."""
    size = spec.preprocessing.resize
    return [*golden_files(size), *proof_files(size)]


def drawn_texts(spec: ModelSpec, count: int) -> list[str] | None:
    """Texts that stand in for the user's own, in models that read some."""
    return None if spec.text is None else list(PROOF_TEXTS[:count])


def feeds_of(images: Sequence[LabelledImage], spec: ModelSpec) -> Feeds:
    """Return the user's images, and texts in models that read some."""
    texts = None if spec.text is None else [image.text or "" for image in images]
    return _feeds([image.pixels for image in images], texts, spec)


def _feeds(pixels: Sequence[NDArray[np.uint8]], texts: Sequence[str] | None, spec: ModelSpec) -> Feeds:
    """Images of the model's own size, and their texts, as the network takes them."""
    batch = np.stack([_of_one_shape(item, spec.preprocessing) for item in pixels])
    image = {"image": batch} if spec.input == "image" else {"pixel_values": normalise(batch, spec.preprocessing)}
    if spec.text is None or texts is None:
        return Feeds(image)
    tokens = Tokenizer(spec.text.tokenizer).encode(texts)
    return Feeds(image | {name: getattr(tokens, name) for name in INPUTS})


def _of_one_shape(pixels: NDArray[np.uint8], rule: Preprocessing) -> NDArray[np.uint8]:
    """Return an image that keeps its shape as the largest square, so that those to tune on make one batch."""
    return preprocess(pixels, replace(rule, mode="squash", patch=0, max_patches=0)) if rule.mode == "naflex" else pixels
