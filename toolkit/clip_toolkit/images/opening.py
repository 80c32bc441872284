"""From an encoded image to a loaded Pillow image, within limits."""

from __future__ import annotations

import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO

from PIL import Image, ImageFile, UnidentifiedImageError

from clip_toolkit.errors import ImageError
from clip_toolkit.images.formats import COMMON, registered_formats

MAX_PIXELS = 178_956_970
"""Pixels beyond which an image is refused before it is decoded: where Pillow itself speaks of a decompression bomb."""

DRAFT_FACTOR = 2
"""How many times larger than needed a JPEG stays that is scaled down while decoding, as in ``Image.thumbnail``."""

_LARGE = 32_000_000  # pixels; more than any usual camera's, and a hundred megabytes in Pillow
_ONE_LARGE = threading.Lock()  # such images are decoded one at a time, so that memory does not grow with the threads

_PILLOW_WARNINGS = threading.Lock()  # catching warnings changes the state of the whole process


@dataclass(frozen=True)
class DecodeOptions:
    """Where the decode rule leaves a choice.

    Attributes:
        max_pixels: width times height beyond which an image is refused. Above `MAX_PIXELS`, Pillow's own limit, twice
            ``PIL.Image.MAX_IMAGE_PIXELS``, stands in the way too; it belongs to the whole process.
        allow_truncated: decode what there is of a file that is cut short, instead of refusing it.
        draft_side: let JPEGs be scaled down by 2, 4, 8 while decoding, as long as both sides keep `DRAFT_FACTOR` times
            this number of pixels; ``None`` for exact pixels.
    """

    max_pixels: int = MAX_PIXELS
    allow_truncated: bool = False
    draft_side: int | None = None


def loaded(file: IO[bytes], options: DecodeOptions) -> Image.Image:
    """Open an image and decode its pixels.

    Raises:
        ImageError: it has more pixels than the options allow.
        Exception: whatever Pillow's plugins raise on damaged files.
    """
    with _PILLOW_WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have a limit of our own
        image = _identified(file)
    if image.width * image.height > options.max_pixels:
        raise ImageError(
            f"{image.width}x{image.height} is more than {options.max_pixels} pixels. "
            "Shrink it first, or raise the limit with max_pixels (--max-pixels)."
        )
    if options.draft_side is not None:
        side = options.draft_side * DRAFT_FACTOR
        image.draft(None, (side, side))  # None keeps the mode; only JPEG does anything
    one_at_a_time = _ONE_LARGE if image.width * image.height > _LARGE else nullcontext()
    with one_at_a_time, _TRUNCATION.set_to(options.allow_truncated):
        _load(image)
    return image


def _load(image: Image.Image) -> None:
    """Decode, and on failure let go of what was decoded at once: the error's traceback holds it."""
    try:
        image.load()
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        image.close()
        raise


def _identified(file: IO[bytes]) -> Image.Image:
    try:
        return Image.open(file, formats=COMMON)
    except UnidentifiedImageError:
        file.seek(0)
        return Image.open(file, formats=registered_formats())


class _TruncationSwitch:
    """Pillow's switch is one for the whole process: strict and lenient decodings must not overlap."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._lenient = False
        self._before = False

    @contextmanager
    def set_to(self, lenient: bool) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0 or self._lenient == lenient)
            if self._running == 0:
                self._before = ImageFile.LOAD_TRUNCATED_IMAGES
            self._lenient = ImageFile.LOAD_TRUNCATED_IMAGES = lenient
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                if self._running == 0:
                    ImageFile.LOAD_TRUNCATED_IMAGES = self._before
                    self._changed.notify_all()


_TRUNCATION = _TruncationSwitch()
