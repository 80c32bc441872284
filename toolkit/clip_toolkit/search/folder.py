"""The files of an indexed folder."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

from clip_toolkit.stream.inputs import expand


class FoundFile(NamedTuple):
    """A file, and what tells whether it has changed.

    Attributes:
        path: relative to the folder, with forward slashes.
        size: bytes.
        mtime_ns: time of the last change, nanoseconds.
    """

    path: str
    size: int
    mtime_ns: int


def found_files(root: Path, without: Container[Path]) -> Iterator[FoundFile]:
    """The files in a folder and below, hidden ones and those ``without`` left out."""
    for name in expand([os.fspath(root)]):
        path = Path(name)
        if path not in without and (status := _status(path)) is not None:
            yield FoundFile(path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns)


def is_unchanged(root: Path, path: str, size: int, mtime_ns: int) -> bool | None:
    """Whether a file is as it was indexed; None if it is not there any more."""
    try:
        status = (root / path).stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) == (size, mtime_ns)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        pass
    try:
        return path.lstat()  # a link that leads nowhere: reading it will say so
    except OSError:
        return None  # deleted since the folder was listed
