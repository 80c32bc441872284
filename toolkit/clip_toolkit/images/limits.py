"""How large an image may be: a small file can ask for all memory, or for minutes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from PIL import Image

from clip_toolkit.errors import ImageError

MAX_PIXELS = 2**27
"""Pixels of 8-bit grey or RGB beyond which an image is refused before it is decoded: at 5 bytes each, 671 MB."""

DRAFT_FACTOR = 3
"""How many times larger than needed a JPEG stays that is scaled down while decoding: at 2, as in ``Image.thumbnail``,
fine detail is up to 40 of 255 off."""

_RGB_BYTES = 4  # Pillow keeps RGB in four bytes
_PLAIN_BYTES = 5  # grey, and its copy in RGB
_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 6, "I;16L": 6, "I;16B": 6, "I;16N": 6, "I": 10, "F": 10}
"""What Pillow and the scaling to 8 bits take; RGB and the modes that are not here take `_RGB_BYTES`."""

_MORE = {"JPEG2000": 4, "WEBP": 1, "AVIF": 2, "HEIF": 2, "QOI": 1}
"""Bytes a channel that formats take whose libraries decode all of an image before Pillow gets it."""

INCOMPLETE = "Is it a complete image file? --allow-truncated (allow_truncated in Python) takes what there is."
"""The remedy for a file that is cut short."""

MAX_SCANS = 100
"""Scans of a progressive JPEG beyond which it is refused; encoders write ten or so."""

_MAX_SCANNED = 2**31
"""Pixels times scans likewise: each scan goes over the whole image again."""

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # ITU-T T.81, B.1.1: FF, but not a stuffed byte, fill or restart
_START_OF_SCAN = b"\xff\xda"


@dataclass(frozen=True)
class DecodeOptions:
    """Where the decode rule leaves a choice.

    Attributes:
        max_pixels: width times height beyond which an image is refused, at 5 bytes of memory a pixel. Images that take
            more (alpha, deep, progressive JPEGs) may have fewer pixels in proportion.
        allow_truncated: decode what there is of a file that is cut short, instead of refusing it.
        draft_side: let JPEGs be scaled down by 2, 4, 8 while decoding, as long as both sides keep this number of
            pixels; ``None`` for exact pixels.
    """

    max_pixels: int = MAX_PIXELS
    allow_truncated: bool = False
    draft_side: int | None = None


def raise_pillows_limit(max_pixels: int) -> None:
    """Let Pillow's own limit, which is one for the whole process, not refuse what a higher one of ours allows."""
    if max_pixels > MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels


def bytes_a_pixel(image: Image.Image) -> int:
    """Bytes a pixel that an opened image takes at its peak, its copy in RGB included."""
    mode, bands = image.mode, len(image.getbands())
    decoded = _RGB_BYTES if mode in {"RGB", "RGBX"} else _BYTES.get(mode, _RGB_BYTES) + _RGB_BYTES
    if image.info.get("progressive"):
        return decoded + 2 * bands  # libjpeg keeps all coefficients, 16 bits each
    return decoded + _MORE.get(image.format or "", 0) * bands


def check_size(width: int, height: int, bytes_a_pixel: float, options: DecodeOptions) -> None:
    """Refuse an image that would take too much memory.

    Args:
        width: in pixels.
        height: in pixels.
        bytes_a_pixel: that decoding takes at its peak.
        options: with the limit.

    Raises:
        ImageError: it would; the message says which limit would let it through.
    """
    pixels = width * height
    needed = int(pixels * max(1, bytes_a_pixel / _PLAIN_BYTES))
    if needed > options.max_pixels:
        raise ImageError(
            f"{width}x{height} pixels would take {pixels * bytes_a_pixel / 1e6:,.0f} MB decoded, more than the limit "
            f"of {options.max_pixels * _PLAIN_BYTES / 1e6:,.0f} MB. Shrink it first, or raise the limit with "
            f"--max-pixels {needed} (max_pixels in Python)."
        )


def check_scans(data: bytes, width: int, height: int) -> None:
    """Refuse a progressive JPEG that would be gone over too often.

    Args:
        data: the file.
        width: in pixels.
        height: in pixels.

    Raises:
        ImageError: it has more than `MAX_SCANS` scans, or scans times pixels are too many.
    """
    scans = _count_scans(data)
    if scans > MAX_SCANS or scans * width * height > _MAX_SCANNED:
        raise ImageError(
            f"a progressive JPEG of {width}x{height} pixels in {scans} scans takes too long. Save it as a baseline "
            "JPEG first."
        )


def _count_scans(data: bytes) -> int:
    """Start-of-scan markers, segments such as embedded thumbnails passed over."""
    scans, position = 0, 2
    while (found := _MARKER.search(data, position)) is not None:
        scans += found[0] == _START_OF_SCAN
        position = found.end()
        if found[0] != b"\xff\xd9":  # all other markers that are left have a segment with its length
            position += int.from_bytes(data[position : position + 2], "big")
    return scans
