"""The decode rule, step by step; `clip_toolkit.images` states it in words."""

from __future__ import annotations

import re
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit.errors import ImageError, TransientImageError
from clip_toolkit.images.arrays import image_of_array, image_of_tensor, is_tensor
from clip_toolkit.images.depth import eight_bit_grey, is_deep
from clip_toolkit.images.limits import INCOMPLETE, DecodeOptions
from clip_toolkit.images.opening import loaded, reason_of
from clip_toolkit.images.sources import ImageSource, binary_file, source_name

BACKGROUND = (255, 255, 255)
"""RGB colour that transparent pixels are composited over."""

_ORIENTATION = 0x0112  # EXIF 2.3, section 4.6.4; the undoing of each is that of PIL.ImageOps.exif_transpose
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_CUT_SHORT = re.compile("truncated|broken data stream", re.IGNORECASE)  # in the words of Pillow's readers
_BAND = 256  # rows composited at a time, so that copies with an alpha channel stay small
_DEFAULT = DecodeOptions()


def decode(source: ImageSource, options: DecodeOptions = _DEFAULT) -> NDArray[np.uint8]:
    """Decode any image source by the rule of `clip_toolkit.images`.

    Returns:
        uint8 RGB pixels ``[height, width, 3]``, values 0 to 255.

    Raises:
        ImageError: as `open_image`.
    """
    return np.asarray(open_image(source, options))


def open_image(source: ImageSource, options: DecodeOptions = _DEFAULT) -> Image.Image:
    """Decode likewise to a loaded Pillow image of mode RGB: copying pixels out of it costs as much as decoding a JPEG.

    An upright Pillow image of that mode comes back itself, not a copy.

    Raises:
        ImageNotFoundError: the path names no file.
        ImageError: the source is not an image, is damaged, is too large, or is an array of a kind without a meaning.
    """
    name = source_name(source)
    try:
        return _decoded(source, name, options)
    except MemoryError as error:
        raise TransientImageError(f"{name}: there is not enough memory to decode it. Shrink it first.") from error


def _decoded(source: ImageSource, name: str, options: DecodeOptions) -> Image.Image:
    if isinstance(source, np.ndarray):
        return _rgb(image_of_array(source))
    if is_tensor(source):
        return _rgb(image_of_tensor(source))
    if isinstance(source, Image.Image):
        return _named(name, source, options)
    with binary_file(source) as file:
        return _named(name, file, options)


def _named(name: str, source: Image.Image | IO[bytes], options: DecodeOptions) -> Image.Image:
    try:
        return _rgb(source if isinstance(source, Image.Image) else loaded(source, options))
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:  # of a frame that is larger than the image
        pixels = "".join(re.findall(r"\d+", str(error))[:1])
        raise ImageError(
            f"{name}: {pixels} pixels are more than the limit of {options.max_pixels} (--max-pixels). Shrink it first."
        ) from error
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except OSError as error:
        if error.errno is not None:  # the system's, not one of Pillow's own
            raise TransientImageError(f"{name}: cannot be read ({error.strerror})") from error
        raise _undecodable(name, error, options) from error
    except Exception as error:  # Pillow's plugins raise anything on damaged files, from struct.error to SyntaxError
        raise _undecodable(name, error, options) from error


def _undecodable(name: str, error: Exception, options: DecodeOptions) -> ImageError:
    reason = reason_of(error)
    return ImageError(f"{name}: cannot be decoded ({reason}). {_hint(reason, options)}")


def _hint(reason: str, options: DecodeOptions) -> str:
    if _CUT_SHORT.search(reason) and not options.allow_truncated:
        return INCOMPLETE
    return "Save it as PNG or JPEG again." if "nsupported" in reason else "Is it a complete image file?"


def _rgb(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"the image is {image.width}x{image.height}; both sides must be at least 1 pixel")
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    if is_deep(image.mode):
        image = Image.fromarray(eight_bit_grey(image))
    elif _has_alpha(image):
        image = _composited(image)
    upright = image if turn is None else image.transpose(turn)
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged EXIF is no reason to refuse a picture, and its readers raise anything
        return 1
    return value if isinstance(value, int) else 1


def _has_alpha(image: Image.Image) -> bool:
    if image.mode in {"1", "L", "P", "RGB"}:
        return "transparency" in image.info
    return image.mode in {"RGBA", "LA", "PA", "La", "RGBa"}


def _composited(image: Image.Image) -> Image.Image:
    opaque = Image.new("RGB", image.size)
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(top + _BAND, image.height)))
        band = (band.convert("LA") if band.mode == "La" else band).convert("RGBA")
        white = Image.new("RGBA", band.size, (*BACKGROUND, 255))
        opaque.paste(Image.alpha_composite(white, band).convert("RGB"), (0, top))
    return opaque
