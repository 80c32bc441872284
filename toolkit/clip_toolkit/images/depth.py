"""Grey of more than 8 bits, scaled to 8 bits: ``floor((value - low) * 255 / (high - low) + 1/2)``.

What is black (``low``) and what is white (``high``):

=====================  ======================================================================================
16 bits                0 and 65535; a TIFF that states 10, 12 or 14 bits a sample: 0 and the largest of those
integers of 32 bits    0 and 65535 where all values lie there, else the image's own smallest and largest
floating point         the first of 0..1, 0..255, 0..65535 that holds all finite values, else the image's own
=====================  ======================================================================================

Values above what a TIFF states as its largest are white. Not-a-number counts as black, infinity as the nearest end.
TIFFs in which 0 is white are turned around.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit.errors import ImageError

_WHITE_16 = 65535
_ROWS = 64  # converted at a time, so that float64 copies stay small
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, section 8


def is_deep(mode: str) -> bool:
    """Whether a Pillow mode has more than 8 bits a channel; all of them are grey."""
    return mode == "F" or mode.startswith("I")


def eight_bit(image: Image.Image) -> NDArray[np.uint8]:
    """Scale deep grey to 8 bits; its transparent value becomes white.

    Returns:
        uint8 ``[height, width]``.

    Raises:
        ImageError: there is no finite value in it.
    """
    values = np.asarray(image)
    low, high = _range(image, values)
    grey = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS):
        rows = np.nan_to_num(values[top : top + _ROWS].astype(np.float64), nan=low, posinf=high, neginf=low)
        grey[top : top + _ROWS] = np.floor((rows - low) * 255 / (high - low) + 0.5).clip(0, 255)
    if image.mode.startswith("I;") and _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return grey


def _range(image: Image.Image, values: NDArray[Any]) -> tuple[float, float]:
    if image.mode.startswith("I;"):
        bits = _tag(image, _BITS_PER_SAMPLE)
        return 0, 2**bits - 1 if bits in (10, 12, 14) else _WHITE_16
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ImageError("there is no finite pixel value in it")
    low, high = float(finite.min()), float(finite.max())
    for white in (1, 255, _WHITE_16) if image.mode == "F" else (_WHITE_16,):
        if low >= 0 and high <= white:
            return 0, white
    return low, max(high, low + 1)


def _tag(image: Image.Image, number: int) -> Any:
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, Sequence) and value else value
