"""From an encoded image to a loaded Pillow image, within limits."""

from __future__ import annotations

import re
import struct
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import IO

from PIL import Image, ImageFile

from clip_toolkit.errors import ImageError
from clip_toolkit.images import dicom, fits, tiff
from clip_toolkit.images.foreign import check_known
from clip_toolkit.images.formats import COMMON, registered_formats
from clip_toolkit.images.limits import DecodeOptions, bytes_a_pixel, check_scans, check_size
from clip_toolkit.images.pillow_faults import check_faults, without_void_alpha

_SAVE = "Save it as PNG or JPEG again."
_HEAD = 4096  # bytes by which formats are told
_LARGE = 32_000_000  # pixels; more than any usual camera's, and a hundred megabytes in Pillow
_ONE_LARGE = threading.Lock()  # such images are decoded one at a time, so that memory does not grow with the threads


def loaded(file: IO[bytes], options: DecodeOptions) -> Image.Image:
    """Open an image and decode its pixels.

    Raises:
        ImageError: it is too large, of a format or kind that is not read, or known to be read wrongly.
        Exception: whatever Pillow's plugins raise on damaged files.
    """
    file.seek(0)  # a buffer that was just written stands at its end
    head = file.read(_HEAD)
    file.seek(0)
    image = _read_here(file, head, options)
    if image is not None:
        return image
    picture = _identified(file, head)
    check_faults(picture, file)
    check_size(picture.width, picture.height, bytes_a_pixel(picture), options)
    if picture.info.get("progressive") and picture.format in ("JPEG", "MPO"):
        file.seek(0)
        check_scans(file.read(), picture.width, picture.height)
    if options.draft_side is not None:
        picture.draft(None, (options.draft_side, options.draft_side))  # None keeps the mode; only JPEG does anything
    one_at_a_time = _ONE_LARGE if picture.width * picture.height > _LARGE else nullcontext()
    with one_at_a_time, _TRUNCATION.set_to(options.allow_truncated):
        _load(picture)
    return without_void_alpha(picture, file)


def reason_of(error: Exception) -> str:
    """Return what an error of Pillow says, without the words that only its programmers understand."""
    text = " ".join(str(error).split())
    is_for_people = isinstance(error, (OSError, SyntaxError, ValueError)) and not _PYTHON_WORDS.search(text)
    return text if text and is_for_people else "its structure is damaged"


def _read_here(file: IO[bytes], head: bytes, options: DecodeOptions) -> Image.Image | None:
    """Return the formats whose pixels are not Pillow's to interpret."""
    if head.startswith(tiff.MAGIC):
        return tiff.read_tiff(file, options)
    if head.startswith(fits.MAGIC):
        return fits.read_fits(file, options)
    if head[dicom.MAGIC_AT :].startswith(dicom.MAGIC):
        return dicom.read_dicom(file, options)
    return None


def _load(image: Image.Image) -> None:
    """Decode, and on failure let go of what was decoded at once: the error's traceback holds it."""
    try:
        image.load()
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        image.close()
        raise


def _identified(file: IO[bytes], head: bytes) -> ImageFile.ImageFile:
    """As ``Image.open``, which has a limit and warnings of its own, and forgets what was wrong with the file."""
    picture, reason = _opened_as(COMMON, file, head)
    if picture is None and reason is None:
        check_known(head)
        picture, reason = _opened_as(registered_formats(), file, head)
    if picture is None:
        raise ImageError(reason or "is not an image in a known format. Convert it to PNG or JPEG.")
    return picture


def _opened_as(formats: Iterable[str], file: IO[bytes], head: bytes) -> tuple[ImageFile.ImageFile | None, str | None]:
    """Return the image as the first format that takes it, or what is wrong with it as the first whose mark it bears."""
    reason = None
    Image.preinit()
    for name in formats:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(head[:16]) is not True:
            continue
        file.seek(0)
        try:
            return factory(file, ""), None
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            if accept is not None:  # every file at all is offered to a format without a mark
                reason = reason or f"is a {name} file that cannot be read ({reason_of(error)}). {_SAVE}"
    return None, reason


_PYTHON_WORDS = re.compile(r"object|argument|NoneType|unpack|literal|buffer|subscript|bytes-like|codec|driver")


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
