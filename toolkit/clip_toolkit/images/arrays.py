"""Pixels given in Python: NumPy arrays ``[height, width, channels]``, PyTorch tensors ``[channels, height, width]``.

===============  ==============================================================================
channels         none or 1: grey; 3: RGB, in this order; 4: RGBA, composited over white
uint8            as they are
uint16           grey is scaled from 0..65535, colour keeps the high byte, as in image files
floating point   0..1, times 255, to the nearest
===============  ==============================================================================

What could be meant in two ways is refused, with the line that says it in one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit.errors import ImageError
from clip_toolkit.images.depth import WHITE_16, eight_bit

_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


def is_tensor(source: object) -> bool:
    """Whether it is a PyTorch tensor, or of a library with the same methods; told without importing any."""
    return all(hasattr(source, name) for name in ("detach", "cpu", "numpy", "permute"))


def image_of_tensor(tensor: Any) -> Image.Image:
    """Return a Pillow image of a tensor ``[channels, height, width]`` or ``[height, width]``, as torchvision has them.

    Raises:
        ImageError: as `image_of_array`.
    """
    shape = list(tensor.shape)
    if len(shape) == 3 and shape[0] not in _CHANNELS:
        remedy = " Give tensor.permute(2, 0, 1)." if shape[2] in _CHANNELS else ""
        raise ImageError(f"tensor: expected [channels, height, width] of 1, 3 or 4 channels, got {shape}.{remedy}")
    if len(shape) not in (2, 3):
        remedy = " Give its images one by one: predict_many(list(tensor))." if len(shape) == 4 else ""
        raise ImageError(f"tensor: expected [channels, height, width] or [height, width], got {shape}.{remedy}")
    moved = (tensor.permute(1, 2, 0) if len(shape) == 3 else tensor).detach().cpu()
    if "float" in str(tensor.dtype):  # bfloat16 is unknown to NumPy
        moved = moved.float()
    return image_of_array(moved.numpy())


def image_of_array(pixels: NDArray[Any]) -> Image.Image:
    """Return a Pillow image of mode L, RGB or RGBA of an array, by the rule of this module.

    Raises:
        ImageError: its shape, dtype or values have no agreed meaning; the message has the line that gives them one.
    """
    _check_shape(pixels)
    eight = _eight_bit(pixels)
    return Image.fromarray(np.ascontiguousarray(eight[..., 0] if eight.shape[2:] == (1,) else eight))


def _check_shape(pixels: NDArray[Any]) -> None:
    shape = list(pixels.shape)
    if 0 in shape:
        raise ImageError(f"array: the shape {shape} has a zero side; both must be at least 1 pixel")
    if pixels.ndim == 2 or (pixels.ndim == 3 and shape[2] in _CHANNELS):
        return
    remedy = ""
    if pixels.ndim == 3 and shape[0] in _CHANNELS:
        remedy = " Give array.transpose(1, 2, 0)."
    if pixels.ndim == 4:
        remedy = " Give its images one by one: predict_many(list(array))."
    raise ImageError(
        f"array: expected [height, width] or [height, width, channels] of 1, 3 or 4 channels, "
        f"got {pixels.dtype} {shape}.{remedy}"
    )


def _eight_bit(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        is_grey = pixels.ndim == 2 or pixels.shape[2] == 1
        return eight_bit(pixels, WHITE_16) if is_grey else np.asarray(pixels >> 8, np.uint8)
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):
            raise ImageError(f"array: expected floating-point values from 0 to 1, got {low:g} to {high:g}. {_FLOATS}")
        return eight_bit(pixels, 1)
    remedy = "array.astype(np.uint8) * 255" if pixels.dtype == bool else "array.astype(np.uint8)"
    raise ImageError(
        f"array: expected uint8, uint16 or floating point, got {pixels.dtype} {list(pixels.shape)}. "
        f"Give {remedy}{'' if pixels.dtype == bool else ', if its values are 0 to 255'}."
    )


_FLOATS = (
    "Give array.astype(np.uint8) if they are 0 to 255, or the image as it was before mean and std were taken off it."
)
