"""From what the command line names to the images meant, in a fixed order.

A folder stands for every file in it and below, sorted by name, hidden ones left out: a file that is no image becomes a
record with an error, so that nothing is passed over in silence. Special files in folders (pipes, devices) are left out,
because reading one may never end. Links to folders are not followed, because they may lead round in circles. A folder
that cannot be read stands for itself, to be reported where it is read.

URLs are not fetched: a runtime that opens what it is told would let whoever writes the list reach hosts that only this
machine can see (server-side request forgery), and its results would depend on the network of the day.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

STDIN = "-"
"""The name that stands for the bytes of one image on standard input."""


class Input(NamedTuple):
    """What is classified: the name of an image, and the text that goes with it, if any."""

    name: str
    text: str | None = None


def expand(arguments: Iterable[str]) -> Iterator[str]:
    """File names, lazily, of files, folders and glob patterns (``**`` goes through folders).

    A name that matches nothing is passed on, to be reported where it is read.
    """
    for argument in arguments:
        if argument != STDIN and not os.path.lexists(argument) and glob.has_magic(argument):
            yield from _matches(argument)
        else:
            yield from _files(argument)


def _matches(pattern: str) -> Iterator[str]:
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute patterns
    if "**" in pattern:  # which already names every file below
        yield from (name for name in matches if not Path(name).is_dir()) if matches else [pattern]
        return
    for name in matches or [pattern]:
        yield from _files(name)


def _files(name: str) -> Iterator[str]:
    if name == STDIN or not Path(name).is_dir():
        yield name
        return
    unreadable: list[str] = []
    for folder, folders, files in os.walk(name, onerror=lambda error: unreadable.append(os.fspath(error.filename))):
        yield from unreadable
        unreadable.clear()
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        for file in sorted(files):
            path = os.path.join(folder, file)  # noqa: PTH118  # Path would be several times slower here
            if not file.startswith(".") and not _is_special(path):
                yield path
    yield from unreadable


def _is_special(path: str) -> bool:
    """Not so are links that lead nowhere, and files in folders that may be listed but not entered."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116  # likewise
    except OSError:
        return False
