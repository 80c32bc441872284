"""The decode rule: one way from any image source to RGB pixels, shared by training, export and inference.

1. The first frame is taken, and the EXIF orientation is applied once.
2. 16-bit greyscale is scaled to 8 bits (divided by 257, rounded): Pillow's own conversion would clip it to white.
3. Alpha is composited over white.
4. Everything else goes through Pillow's conversion to RGB. Colour profiles are ignored, as the encoders' own
   processors ignore them.

Only formats that Pillow decodes by itself are opened: none of them starts another program.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from clip_toolkit.errors import ImageError, ImageNotFoundError

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[np.uint8]"
"""What an image may be given as: a path, the bytes of a file, an open binary file, a Pillow image, or RGB pixels."""

BACKGROUND = (255, 255, 255)
"""RGB colour that transparent pixels are composited over."""

# EPS is left out because Pillow hands it to Ghostscript, WMF and EMF because they go to the Windows API.
FORMATS = (
    *("AVIF", "BLP", "BMP", "CUR", "DDS", "DIB", "FITS", "FLI", "GIF", "ICNS", "ICO", "IM", "JPEG", "JPEG2000"),
    *("MPO", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI", "SPIDER", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM"),
)

MAX_PIXELS = 178_956_970
"""Pixels beyond which an image is refused before it is decoded: where Pillow itself speaks of a decompression bomb."""

_WHITE_16 = 65535

_PILLOW_WARNINGS = threading.Lock()  # catching warnings changes the state of the whole process


def decode(source: ImageSource) -> NDArray[np.uint8]:
    """Decode any image source by the rule above.

    Returns:
        uint8 RGB pixels ``[height, width, 3]``, values 0 to 255.

    Raises:
        ImageNotFoundError: the path names no file.
        ImageError: the source is not an image, is damaged, is too large, or is an array of another shape or dtype.
    """
    if isinstance(source, np.ndarray):
        return _checked_pixels(source)
    name = source_name(source)
    try:
        return _rgb(_opened(source, name), name)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: is not an image in a known format") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: more than {MAX_PIXELS} pixels. Shrink it first.") from error
    except Exception as error:  # Pillow's plugins raise anything on damaged files, from struct.error to SyntaxError
        raise ImageError(f"{name}: cannot be decoded ({_reason(error)}). Is it a complete image file?") from error


def source_name(source: ImageSource) -> str:
    """How messages call an image: its path, or its type where it has none."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return f"<{type(source).__name__}>"


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _opened(source: str | os.PathLike[str] | bytes | IO[bytes] | Image.Image, name: str) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, (str, os.PathLike)):
        source = _file_bytes(Path(source), name)
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    if not hasattr(source, "read"):
        raise ImageError(f"{name}: expected a path, bytes, a binary file, a Pillow image or a uint8 array")
    with _PILLOW_WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have a limit of our own
        image = Image.open(source, formats=_registered_formats())
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{name}: {image.width}x{image.height} is more than {MAX_PIXELS} pixels. Shrink it first.")
    return image


def _registered_formats() -> list[str]:
    """Formats we allow that this build of Pillow knows (AVIF, for one, is optional)."""
    Image.preinit()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _file_bytes(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageNotFoundError(f"{name}: there is no such image file") from error
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror})") from error


def _rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    if 0 in image.size:
        raise ImageError(f"{name}: the image is {image.width}x{image.height}; both sides must be at least 1 pixel")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = _eight_bit(image)
    elif image.mode == "F":
        raise ImageError(f"{name}: floating-point pixels have no agreed range. Save the image with 8 or 16 bits.")
    elif _has_alpha(image):
        image = _composited(image)
    return np.asarray(image.convert("RGB"))


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).clip(0, _WHITE_16).astype(np.uint32)
    if "transparency" in image.info:
        values = np.where(values == image.info["transparency"], _WHITE_16, values)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info


def _composited(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image)


def _checked_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ImageError(
            f"array: expected uint8 RGB pixels [height, width, 3], got {pixels.dtype} {list(pixels.shape)}"
        )
    if 0 in pixels.shape:
        raise ImageError(f"array: the shape {list(pixels.shape)} has a zero side; both must be at least 1 pixel")
    return pixels
