"""FITS, plain images of two dimensions (FITS standard 4.0, sections 3 to 5): Pillow 12 reads only 8 bits rightly."""

from __future__ import annotations

from typing import IO, Any

import numpy as np
from PIL import Image

from clip_toolkit.errors import ImageError
from clip_toolkit.images.depth import WHITE_16, eight_bit
from clip_toolkit.images.limits import INCOMPLETE, DecodeOptions, check_size

MAGIC = b"SIMPLE  ="

_BLOCK, _CARD, _MOST_BLOCKS = 2880, 80, 1000
_KINDS = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}  # BITPIX, table 8
_UNSIGNED_16 = 32768  # BZERO of unsigned integers of 16 bits, table 11


def read_fits(file: IO[bytes], options: DecodeOptions) -> Image.Image:
    """Decode the primary image; its first row is the lowest.

    Returns:
        A Pillow image of mode L.

    Raises:
        ImageError: it holds no image of two dimensions, is too large, or is cut short.
    """
    cards = _cards(file)
    axes = [int(_number(cards, f"NAXIS{i + 1}", 0)) for i in range(min(int(_number(cards, "NAXIS", 0)), 999))]
    bits = int(_number(cards, "BITPIX", 0))
    if bits not in _KINDS or len(axes) != 2 or min(axes) < 1:
        raise ImageError(f"a FITS file with the axes {axes or 'none'} is not read. Save one plane as PNG or TIFF.")
    width, height = axes
    kind = np.dtype(_KINDS[bits])
    check_size(width, height, 2 * kind.itemsize + 9, options)
    data = file.read(width * height * kind.itemsize)
    missing = width * height * kind.itemsize - len(data)
    if missing and not options.allow_truncated:
        raise ImageError(f"the pixels are cut short. {INCOMPLETE}")
    values = np.frombuffer(data + bytes(missing), kind).reshape(height, width)[::-1]
    return Image.fromarray(_eight_bit(values, cards))


def _eight_bit(values: np.ndarray[Any, Any], cards: dict[str, str]) -> np.ndarray[Any, Any]:
    scale, zero = _number(cards, "BSCALE", 1), _number(cards, "BZERO", 0)
    if values.dtype.itemsize == 1 and (scale, zero) == (1, 0):
        return np.ascontiguousarray(values)
    if values.dtype == ">i2" and (scale, zero) == (1, _UNSIGNED_16):
        return eight_bit(values.astype(np.int32) + _UNSIGNED_16, WHITE_16)
    return eight_bit(values if (scale, zero) == (1, 0) else values.astype(np.float64) * scale + zero)


def _cards(file: IO[bytes]) -> dict[str, str]:
    cards: dict[str, str] = {}
    for _ in range(_MOST_BLOCKS):
        block = file.read(_BLOCK)
        for start in range(0, len(block), _CARD):
            card = block[start : start + _CARD].decode("latin-1")
            if card.strip() == "END":
                return cards
            if card[8:10] == "= ":
                cards.setdefault(card[:8].strip(), card[10:].split("/")[0].strip())
    raise ImageError("the FITS header has no end. Is it a complete image file?")


def _number(cards: dict[str, str], name: str, default: float) -> float:
    text = cards.get(name)
    try:
        return default if text is None else float(text.replace("D", "E"))
    except ValueError as error:
        raise ImageError(f"the FITS header says {name} = {text!r}, not a number. It is damaged.") from error
