"""The files of an indexed folder."""

from __future__ import annotations

import stat
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

from clip_toolkit.files.stamp import Stamp
from clip_toolkit.images.folder import ImageListing

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
