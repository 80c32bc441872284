"""Preprocessing with Pillow, bit for bit what the transformers image processors (Pillow backend) do.

The exported graph holds the same steps as operators, for apps without Pillow. The Python runtime takes this path, and
the graph's resize is measured against it.

A resize has two passes with rounding between them, so that their order shows. Pillow resized horizontally first up to
version 12; since 13 it takes the vertical pass first for images that lose much more height than width
(python-pillow/Pillow#9549). Here the order is always horizontal first, whatever Pillow is installed: a model must not
change its mind because its host was upgraded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit.errors import ImageError
from clip_toolkit.spec.classifier import Preprocessing

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

MAX_ASPECT = 1000
"""Longest side over shortest side beyond which an image is refused: resized, it would need hundreds of megabytes."""


def resized_shape(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width, in pixels, after the resize and before the crop.

    The longer side is truncated, as ``get_resize_output_image_size`` of transformers does.
    """
    if preprocessing.mode == "squash":
        return preprocessing.size, preprocessing.size
    short, long = min(height, width), max(height, width)
    resized_long = int(preprocessing.resize * long / short)
    return (preprocessing.resize, resized_long) if height <= width else (resized_long, preprocessing.resize)


def crop_offset(resized: int, size: int, rule: str = "floor") -> int:
    """First row or column of the centre crop: half the difference.

    Args:
        resized: pixels of the side before the crop.
        size: after it.
        rule: ``floor`` rounds half a pixel down (transformers), ``half_even`` to the even number (torchvision).
    """
    return (resized - size) // 2 if rule == "floor" else round((resized - size) / 2)


def preprocess(image: Image.Image | NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize and crop an image to the model's size.

    Args:
        image: Pillow image of mode RGB, or uint8 RGB ``[height, width, 3]``.
        preprocessing: the encoder's rule.

    Returns:
        uint8 RGB ``[size, size, 3]``.
    """
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    size, resample = preprocessing.size, _FILTERS[preprocessing.resample]
    new_height, new_width = resized_shape(picture.height, picture.width, preprocessing)
    top, left = (crop_offset(side, size, preprocessing.crop_offset) for side in (new_height, new_width))
    narrow = picture.resize((new_width, picture.height), resample)
    # The vertical pass treats each column by itself: those that the crop drops need none.
    columns = narrow.crop((left, 0, left + size, picture.height))
    return np.asarray(columns.resize((size, new_height), resample).crop((0, top, size, top + size)))


def check_aspect(height: int, width: int) -> None:
    """Refuse an image that is all length.

    Raises:
        ImageError: one side is more than `MAX_ASPECT` times the other.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ImageError(
            f"the image is {width}x{height}: one side is over {MAX_ASPECT} times the other. Crop it first."
        )


def check_resized(height: int, width: int, preprocessing: Preprocessing, most: int) -> None:
    """Refuse an image that one pass of the resize would make larger than ``most`` pixels.

    Raises:
        ImageError: such as for a thin image and a model of large input.
    """
    new_height, new_width = resized_shape(height, width, preprocessing)
    needed = max(new_width * height, new_width * new_height)
    if needed > most:
        raise ImageError(
            f"the image is {width}x{height}: resized for this model it would have {needed} pixels, more than {most}. "
            "Crop it first."
        )


def normalise(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Scale and normalise pixels for files exported with ``--input pixels``.

    Args:
        pixels: uint8 RGB ``[batch, size, size, 3]``.
        preprocessing: the encoder's rule.

    Returns:
        float32 ``[batch, 3, size, size]``, ``(pixel * scale - mean) / std`` per channel.
    """
    mean, std = (np.array(values, np.float32) for values in (preprocessing.mean, preprocessing.std))
    scaled = (pixels * np.float64(preprocessing.scale)).astype(np.float32)  # in this order, as transformers does
    normalised = (scaled - mean) / std
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))
