"""Which parts of an image speak for its label, found by covering them one after the other: of any model file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.classifier import Classifier
from clip_toolkit.text.tokenization import Tokens

CELLS = 7
"""Rows and columns: an image costs the square of it in runs, and one more."""


def occlusion(classifier: Classifier, pixels: NDArray[np.uint8], text: str | None = None) -> NDArray[np.float32]:
    """Return by how much the largest logit falls where a cell is covered with the image's mean colour.

    Args:
        classifier: any model of one head.
        pixels: what `Classifier.pixels` has returned, uint8 RGB ``[height, width, 3]``.
        text: that goes with the image, for a model that reads one.

    Returns:
        float32 ``[CELLS, CELLS]`` over ``pixels``; negative where a part speaks against the label. Images with fewer
        pixels a side than cells have fewer.
    """
    tokens = None if classifier.tokenizer is None else classifier.tokenizer.encode([text or ""])
    before = _logits(classifier, pixels, tokens)
    label = int(before.argmax())
    height, width = (min(CELLS, side) for side in pixels.shape[:2])
    after = [_logits(classifier, covered, tokens)[label] for covered in _covered(pixels, height, width)]
    return np.asarray(before[label] - np.array(after, np.float32)).reshape(height, width)


def _logits(classifier: Classifier, pixels: NDArray[np.uint8], tokens: Tokens | None) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = classifier.run(pixels[None], tokens).logits[0]
    return logits


def _covered(pixels: NDArray[np.uint8], rows: int, columns: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the image with each cell in turn in its mean colour, row by row."""
    mean = np.rint(pixels.mean((0, 1))).astype(np.uint8)
    for band in np.array_split(np.arange(pixels.shape[0]), rows):
        for stripe in np.array_split(np.arange(pixels.shape[1]), columns):
            covered = pixels.copy()
            covered[np.ix_(band, stripe)] = mean
            yield covered
