"""Tar files of images, such as the shards of WebDataset: https://github.com/webdataset/webdataset."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from clip_scale.errors import SourceError
from clip_scale.sources.parts import check_files
from clip_scale.stores import opened
from clip_toolkit.errors import ImageError, first_line
from clip_toolkit.images.folder import is_hidden
from clip_toolkit.images.formats import SUFFIXES
from clip_toolkit.images.sources import NamedBytes, is_url
from clip_toolkit.stream.inputs import Input

_UNPACK: dict[str, Callable[[IO[bytes]], Any]] = {
    ".tar": lambda file: file,
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}

SHARDS = tuple(_UNPACK)
"""How their names end."""

_LARGEST = 2**30  # bytes of an image that are read into memory
_CHUNK = 2**20
_DAMAGE = (EOFError, gzip.BadGzipFile, tarfile.TarError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class ShardPart:
    """The images of a tar file, told by the suffixes that images of folders have.

    Attributes:
        path: of the tar file.
        size: its bytes.
    """

    path: str
    size: int

    def inputs(self) -> Iterator[Input]:
        """Read the images in the order of the archive, called by the paths of the tar file and of the member.

        What is wrong with the archive comes behind the images before it, as an `ImageError` in place of an image.

        Raises:
            SourceError: an object store does not answer: a run ends, and can go on when it does.
        """
        count = 0
        unpack = next(unpack for suffix, unpack in _UNPACK.items() if self.path.lower().endswith(suffix))
        try:
            with opened(self.path) as packed, unpack(packed) as file:
                for item in self._images(file):
                    yield item
                    count += 1
        except SourceError:
            raise
        except Exception as error:  # stores raise their own classes
            if is_url(self.path) and not isinstance(error, _DAMAGE):
                raise SourceError(f"{self.path}: cannot be read ({first_line(error)})") from error
            if not isinstance(error, (*_DAMAGE, OSError, ValueError)):
                raise
            yield Input(self.path, image=ImageError(f"{self.path}: is damaged behind {count} images ({error})"))

    def identity(self) -> Any:
        """File and size."""
        return [self.path, self.size]

    def check_reach(self) -> None:
        """Look for the file."""
        check_files([self.path])

    def _images(self, file: IO[bytes]) -> Iterator[Input]:
        watched: Any = _Watched(file)
        with tarfile.open(fileobj=watched, mode="r:") as archive:
            for member in archive:
                if _is_image(member):
                    name = f"{self.path}/{member.name}"
                    yield Input(name, image=_content(archive, member, name))
        _check_end(watched.last, file)


class _Watched:
    """A file that remembers what was read last: tarfile takes a damaged header for the end, and a missing end, too."""

    def __init__(self, file: IO[bytes]) -> None:
        self.tell, self.seek, self._read, self.last = file.tell, file.seek, file.read, b""

    def read(self, size: int) -> bytes:
        self.last = self._read(size)
        return self.last


def _check_end(last: bytes, file: IO[bytes]) -> None:
    """Refuse an archive whose last header is not the block of zeros that ends one (POSIX.1-2008, pax), or goes on."""
    if last != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it ends in the middle" if not last else "a header is not valid")
    while chunk := file.read(_CHUNK):  # up to the checksum of a compressed file
        if chunk.strip(b"\0"):
            raise tarfile.ReadError("another archive is joined to its end")


def _is_image(member: tarfile.TarInfo) -> bool:
    path = PurePosixPath(member.name)
    return not member.isdir() and path.suffix[1:].lower() in SUFFIXES and not is_hidden(path)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> NamedBytes | ImageError:
    if not member.isfile():
        return ImageError(f"{name}: is a link or a device, not a file")
    if member.size > _LARGEST:
        return ImageError(f"{name}: is larger than {_LARGEST} bytes")
    file = archive.extractfile(member)
    assert file is not None, "of a file"
    return NamedBytes(file.read(), name)
