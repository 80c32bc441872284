"""Samples of more than 8 bits, scaled to 8 bits: ``floor((value - low) * 255 / (high - low) + 1/2)``.

What is black (``low``) and what is white (``high``):

======================  =====================================================================================
unsigned, n <= 16 bits  0 and ``2**n - 1``
integers above 16 bits  0 and 65535 where all values lie there, else the image's own smallest and largest
signed, n <= 16 bits    the image's own smallest and largest: the type states no white
floating point          the first of 0..1, 0..255, 0..65535 that holds all finite values, else the image's own
======================  =====================================================================================

Not-a-number counts as black, infinity as the nearest end. All channels of an image share one range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit.errors import ImageError

WHITE_16 = 65535
_ROWS = 64  # converted at a time, so that float64 copies stay small
_WIDEST = 1e300  # a wider range overflows float64 on the way


def is_deep(mode: str) -> bool:
    """Whether a Pillow mode has more than 8 bits a channel; all of them are grey."""
    return mode == "F" or mode.startswith("I")


def eight_bit_grey(image: Image.Image) -> NDArray[np.uint8]:
    """Scale a deep grey Pillow image to 8 bits; its transparent value becomes white.

    Returns:
        uint8 ``[height, width]``.

    Raises:
        ImageError: as `eight_bit`.
    """
    values = np.asarray(image)
    grey = eight_bit(values, WHITE_16 if image.mode.startswith("I;") else None)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return grey


def eight_bit(values: NDArray[Any], white: int | None = None) -> NDArray[np.uint8]:
    """Scale samples to 8 bits.

    Args:
        values: integers or floating point, of any shape.
        white: the value of white where black is 0; None: by the table above, for types that state none.

    Returns:
        uint8 of the same shape.

    Raises:
        ImageError: there is no finite value in it, or their range is beyond float64.
    """
    low, high = (0.0, float(white)) if white is not None else _range(values)
    scaled = np.empty(values.shape, np.uint8)
    with np.errstate(invalid="ignore"):  # signalling not-a-numbers warn when they are cast
        for top in range(0, len(values), _ROWS):
            rows = np.nan_to_num(values[top : top + _ROWS].astype(np.float64), nan=low, posinf=high, neginf=low)
            scaled[top : top + _ROWS] = np.floor((rows - low) * 255 / (high - low) + 0.5).clip(0, 255)
    return scaled


def _range(values: NDArray[Any]) -> tuple[float, float]:
    low, high = _finite_range(values)
    for white in _usual_whites(values.dtype):
        if low >= 0 and high <= white:
            return 0, white
    if high - low > _WIDEST:
        raise ImageError(f"its values range from {low:g} to {high:g}, which is too wide. Scale it to 0..1 first.")
    return low, high if high > low else low + max(1, abs(low))


def _usual_whites(kind: np.dtype[Any]) -> tuple[int, ...]:
    if kind.kind == "f":
        return 1, 255, WHITE_16
    return (WHITE_16,) if kind.itemsize > np.dtype(np.uint16).itemsize else ()


def _finite_range(values: NDArray[Any]) -> tuple[float, float]:
    if values.dtype.kind != "f":
        return float(values.min()), float(values.max())
    low, high = np.inf, -np.inf
    for top in range(0, len(values), _ROWS):
        rows = values[top : top + _ROWS]
        finite = rows[np.isfinite(rows)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        raise ImageError("there is no finite pixel value in it")
    return low, high
