# ruff: noqa: PTH110, PTH114, PTH116, PTH118, PTH119, PTH122  (pathlib would be several times slower here)
"""What a folder of images contains: one rule for training, calibration, inference and search.

Its images are the files in it and below whose names end like an image's (`clip_toolkit.images.formats.SUFFIXES`),
sorted by name. Left out, and counted: other files, unless all are asked for; hidden files and folders, which are
caches and thumbnails of programs; links to folders, which may lead round in circles; pipes and devices, because
reading one may never end. A link that leads nowhere, and a folder that cannot be read, stand for themselves: reading
them says so.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator

from clip_toolkit.images.formats import SUFFIXES

_EXAMPLES = 3  # named of each kind
_HIDDEN, _LINKED, _DANGLING = "hidden", "links to folders, not followed", "links that lead nowhere"
_OTHER, _SPECIAL = "without an image's suffix; --all-files takes them", "pipes or devices"


class ImageListing:
    """Lists the images of folders, and remembers what it has left out."""

    def __init__(self, *, all_files: bool = False) -> None:
        """Prepare; with ``all_files`` names may end in anything."""
        self._all_files = all_files
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def images(self, folder: str | os.PathLike[str]) -> Iterator[str]:
        """List the images in a folder and below, lazily and in order.

        Args:
            folder: the folder; a link to one is followed.

        Yields:
            Paths that start with ``folder``: of files, of links that lead nowhere, and of folders that cannot be read.
        """
        unreadable: list[str] = []
        walk = os.walk(folder, onerror=lambda error: unreadable.append(os.fspath(error.filename)))
        for place, folders, files in walk:
            yield from unreadable
            unreadable.clear()
            folders[:] = [name for name in sorted(folders) if self._enters(os.path.join(place, name))]
            for name in sorted(files):
                path = os.path.join(place, name)
                if self._takes(path):
                    yield path
        yield from unreadable

    def notes(self) -> list[str]:
        """Return what was left out since the start: a line for each kind, with its number and the first paths."""
        return [
            f"left out: {count} {kind} ({', '.join(self._examples[kind])}{', ...' if count > _EXAMPLES else ''})"
            for kind, count in self._counts.items()
        ]

    def _enters(self, path: str) -> bool:
        return self._noted(_HIDDEN if is_hidden(path) else _LINKED if os.path.islink(path) else None, path)

    def _takes(self, path: str) -> bool:
        reason = None
        if is_hidden(path):
            reason = _HIDDEN
        elif not self._all_files and os.path.splitext(path)[1][1:].lower() not in SUFFIXES:
            reason = _DANGLING if os.path.islink(path) and not os.path.exists(path) else _OTHER
        elif _is_special(path):
            reason = _SPECIAL
        return self._noted(reason, path)

    def _noted(self, reason: str | None, path: str) -> bool:
        if reason is None:
            return True
        self._counts[reason] += 1
        self._examples.setdefault(reason, [])
        if len(self._examples[reason]) < _EXAMPLES:
            self._examples[reason].append(path)
        return False


def is_hidden(path: str | os.PathLike[str]) -> bool:
    """Whether the file or folder at the end of a path is hidden."""
    return os.path.basename(path).startswith(".")


def _is_special(path: str) -> bool:
    """Not so are links that lead nowhere, and files in folders that may be listed but not entered."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
