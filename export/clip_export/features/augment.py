"""Augmented views of an image: a crop, perhaps mirrored, with other light."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance

_LEAST_SIDE = 0.8  # of the image's own, of a crop
_LIGHT = (0.8, 1.2)  # factors of brightness, contrast and saturation


def augmented(image: Image.Image, content: bytes, view: int) -> Image.Image:
    """View number ``view`` of an image; 0 is the image itself.

    Args:
        image: of mode RGB.
        content: a hash of the file; it and ``view`` decide everything, so that a view can be cached.
        view: number of the view.
    """
    if view == 0:
        return image
    rng = np.random.default_rng([view, *content[:16]])
    width, height = image.size
    side = rng.uniform(_LEAST_SIDE, 1)
    inside = max(1, round(height * side)), max(1, round(width * side))
    top, left = (int(rng.integers(0, whole - part + 1)) for whole, part in zip((height, width), inside, strict=True))
    picture = image.crop((left, top, left + inside[1], top + inside[0]))
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhancer(picture).enhance(float(rng.uniform(*_LIGHT)))
    return picture
