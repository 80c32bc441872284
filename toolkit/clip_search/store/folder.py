"""The files of an indexed folder, and what tells whether one has changed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

from clip_toolkit.images.folder import ImageListing


class Stamp(NamedTuple):
    """What changes with a file's content, as a rule.

    Attributes:
        size: bytes.
        mtime_ns: time of the last change, nanoseconds; copying and unpacking set it to that of the original.
        ctime_ns: likewise of content, name or permissions, which no program sets (on Windows: of the creation).
    """

    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """From what the system says of a file."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


_UNKNOWN = Stamp(0, 0, 0)


class FoundFile(NamedTuple):
    """A file in a folder.

    Attributes:
        path: relative to the folder, with forward slashes.
        stamp: as it was found.
        is_folder: it is a folder that cannot be read.
    """

    path: str
    stamp: Stamp
    is_folder: bool = False


def found_files(root: Path, without: Container[Path], listing: ImageListing) -> Iterator[FoundFile]:
    """Yield the images in a folder and below, those ``without`` left out, and folders that cannot be read."""
    for name in listing.images(root):
        path = Path(name)
        if path not in without and (found := _found(path, path.relative_to(root).as_posix())) is not None:
            yield found


def stamp_of(path: Path) -> Stamp | None:
    """Read the stamp of a file as it is now; None if it is not there."""
    try:
        return Stamp.of(path.stat())
    except OSError:
        return None


def read_digest(path: Path) -> tuple[Stamp, bytes]:
    """Read the stamp of a file, and then the SHA-256 of its content.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as content:
        return Stamp.of(os.fstat(content.fileno())), hashlib.file_digest(content, "sha256").digest()


def is_unchanged(path: Path, stamp: Stamp, digest: bytes | None) -> bool | None:
    """Whether a file has the content that was indexed; None if it is not there any more.

    The content is read only where the stamp differs, as after a change of permissions.
    """
    found = stamp_of(path)
    if found is None or found == stamp:
        return None if found is None else True
    try:
        return found.size == stamp.size and read_digest(path)[1] == digest
    except OSError:
        return False


def _found(path: Path, name: str) -> FoundFile | None:
    try:
        status = path.stat()
        return FoundFile(name, Stamp.of(status), stat.S_ISDIR(status.st_mode))
    except OSError:
        pass
    try:
        return FoundFile(name, Stamp.of(path.lstat()))  # a link that leads nowhere: reading it will say so
    except FileNotFoundError:
        return None  # deleted since the folder was listed
    except OSError:
        return FoundFile(name, _UNKNOWN)  # in a folder that may be listed but not entered; likewise
