"""Preprocessing with Pillow, bit for bit what the transformers image processors (Pillow backend) do.

The exported graph holds the same steps as operators, for apps without Pillow. The Python runtime takes this path, and
the graph's resize is measured against it.

A resize has two passes with rounding between them, so that their order shows. Pillow resized horizontally first up to
version 12; since 13 it takes the vertical pass first for images that lose much more height than width
(python-pillow/Pillow#9549). Here the order is always horizontal first, whatever Pillow is installed: a model must not
change its mind because its host was upgraded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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

    The longer side is truncated, as ``get_resize_output_image_size`` of transformers does. Before borders are added,
    both are rounded, as open_clip's ``ResizeKeepRatio`` does, but never to nothing.
    """
    if preprocessing.mode == "squash":
        return preprocessing.size, preprocessing.size
    if preprocessing.mode == "naflex":
        return _largest_grid(height, width, preprocessing.patch, preprocessing.max_patches)
    short, long = min(height, width), max(height, width)
    if preprocessing.mode == "pad":
        ratio = long / preprocessing.size
        return max(round(height / ratio), 1), max(round(width / ratio), 1)
    resized_long = int(preprocessing.resize * long / short)
    return (preprocessing.resize, resized_long) if height <= width else (resized_long, preprocessing.resize)


LEAST_SCALE, MOST_SCALE, SCALE_STEPS = 1e-5 / 10, 100.0, 24
"""Where the search for a scale begins, and the halvings after which its bounds are less than 1e-5 apart."""


def _largest_grid(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """Find the shape in whole patches, as ``get_image_size_for_max_num_patches`` of transformers' SigLIP 2 does."""
    low, high = LEAST_SCALE, MOST_SCALE
    for _ in range(SCALE_STEPS):
        scale = (low + high) / 2
        fits = math.ceil(height * scale / patch) * math.ceil(width * scale / patch) <= most
        low, high = (scale, high) if fits else (low, scale)
    return math.ceil(height * low / patch) * patch, math.ceil(width * low / patch) * patch


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
        uint8 RGB ``[size, size, 3]``; in mode ``naflex``, of the image's own grid of patches.
    """
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    size, resample = preprocessing.size, _FILTERS[preprocessing.resample]
    new_height, new_width = resized_shape(picture.height, picture.width, preprocessing)
    if preprocessing.mode == "pad":
        narrow = picture.resize((new_width, picture.height), resample)
        return _padded(np.asarray(narrow.resize((new_width, new_height), resample)), size, preprocessing.fill)
    height, width = (size, size) if preprocessing.mode == "crop" else (new_height, new_width)
    top = crop_offset(new_height, height, preprocessing.crop_offset)
    left = crop_offset(new_width, width, preprocessing.crop_offset)
    narrow = picture.resize((new_width, picture.height), resample)
    # The vertical pass treats each column by itself: those that the crop drops need none.
    columns = narrow.crop((left, 0, left + width, picture.height))
    return np.asarray(columns.resize((width, new_height), resample).crop((0, top, width, top + height)))


def _padded(pixels: NDArray[np.uint8], size: int, fill: int) -> NDArray[np.uint8]:
    """Put an image into the middle of a square, half a pixel higher or further left where it cannot be."""
    height, width = pixels.shape[:2]
    top, left = (size - height) // 2, (size - width) // 2
    square = np.full((size, size, 3), fill, np.uint8)
    square[top : top + height, left : left + width] = pixels
    return square


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
    """Refuse an image that one pass of the resize would make larger than ``most`` pixels, or another model resize.

    Raises:
        ImageError: such as for a thin image and a model of large input, or for one of few pixels in mode ``naflex``.
    """
    new_height, new_width = resized_shape(height, width, preprocessing)
    if preprocessing.mode == "naflex":
        _check_grid(height, width, preprocessing)
    needed = max(new_width * height, new_width * new_height)
    if needed > most:
        raise ImageError(
            f"the image is {width}x{height}: resized for this model it would have {needed} pixels, more than {most}. "
            "Crop it first."
        )


def _check_grid(height: int, width: int, preprocessing: Preprocessing) -> None:
    found = resized_shape(height, width, preprocessing)
    if resized_shape(*found, preprocessing) != found:  # at the largest scale that is tried: the graph would go on
        raise ImageError(f"the image is {width}x{height}: too few pixels for this model. Enlarge it first.")
    if found[1] == preprocessing.patch:  # PyTorch's antialiased resize to one column, of the positions, is wrong
        raise ImageError(
            f"the image is {width}x{height}: one patch wide for this model, where the answers of transformers itself "
            "are not to be relied on. Crop it first."
        )


def by_shape(pixels: Sequence[NDArray[np.uint8]]) -> list[list[int]]:
    """Group prepared images that one batch can hold: their indices, shape by shape. In most modes all are alike."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(pixels):
        groups.setdefault(image.shape, []).append(index)
    return list(groups.values())


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
