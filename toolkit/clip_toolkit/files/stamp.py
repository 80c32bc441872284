"""Whether a file is the one that was read before, as a rule without reading it again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple


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


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    return read_digest(path)[1].hex()


def is_unchanged(path: Path, stamp: Stamp, digest: bytes | None) -> bool | None:
    """Whether a file has the content that it had; None if it is not there any more.

    The content is read only where the stamp differs, as after a change of permissions.
    """
    found = stamp_of(path)
    if found is None or found == stamp:
        return None if found is None else True
    try:
        return found.size == stamp.size and read_digest(path)[1] == digest
    except OSError:
        return False
