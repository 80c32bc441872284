"""What an image may be given as, and how messages call it."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit.errors import ImageError, ImageNotFoundError, TransientImageError

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[np.uint8]"
"""What an image may be given as: a path, the bytes of a file, an open binary file, a Pillow image, or RGB pixels."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class NamedBytes(io.BytesIO):
    """The bytes of an image file, under the name that messages call it by."""

    def __init__(self, content: bytes, name: str) -> None:
        """Keep both."""
        super().__init__(content)
        self.name = name


def is_url(name: str) -> bool:
    """Tell whether a name is a URL, not a path."""
    return _URL.match(name) is not None


def source_name(source: ImageSource) -> str:
    """How messages call an image: its path, or its type where it has none."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, NamedBytes):
        return str(source.name)
    return f"<{type(source).__name__}>"


@contextmanager
def binary_file(source: ImageSource) -> Iterator[IO[bytes]]:
    """Open a seekable binary file of an encoded image's bytes; files of the caller stay open.

    Raises:
        ImageNotFoundError: the path names no file.
        ImageError: the path cannot be read, or the source is of another type.
    """
    if isinstance(source, (str, os.PathLike)):
        with _opened(source) as file:
            yield _seekable(file, source_name(source))
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield io.BytesIO(source)
    elif isinstance(source, (Image.Image, np.ndarray)) or not hasattr(source, "read"):
        raise ImageError(
            f"{source_name(source)}: expected a path, bytes, a binary file, a Pillow image or a uint8 array"
        )
    else:
        yield _seekable(source, source_name(source))


def _opened(path: str | os.PathLike[str]) -> IO[bytes]:
    name = os.fspath(path)
    try:
        return Path(path).open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        if is_url(name):
            raise ImageError(f"{name}: URLs are not fetched. Download the image and name the file.") from error
        raise ImageNotFoundError(f"{name}: there is no such image file") from error
    except OSError as error:
        raise TransientImageError(f"{name}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # a null byte in the path
        raise ImageError(f"{name!r}: cannot be read ({error})") from error


def _seekable(file: IO[bytes], name: str) -> IO[bytes]:
    """Pillow goes back and forth in a file, which a pipe does not allow."""
    try:
        seekable = getattr(file, "seekable", None)
        return file if seekable is None or seekable() else io.BytesIO(file.read())
    except (OSError, ValueError) as error:  # such as of a file that is closed
        raise TransientImageError(f"{name}: cannot be read ({error})") from error
