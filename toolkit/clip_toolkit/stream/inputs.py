"""From what the command line names to the images meant, in a fixed order.

A folder stands for the images in it and below (`clip_toolkit.images.folder`); a file that is named is taken whatever
it is called.

URLs are not fetched: a runtime that opens what it is told would let whoever writes the list reach hosts that only this
machine can see (server-side request forgery), and its results would depend on the network of the day.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from clip_toolkit.errors import ImageError
    from clip_toolkit.images import ImageSource
    from clip_toolkit.images.folder import ImageListing

STDIN = "-"
"""The name that stands for the bytes of one image on standard input."""


class Input(NamedTuple):
    """What is classified.

    Attributes:
        name: of an image or a video.
        text: what goes with it, if anything.
        time: seconds from the start of a video.
        image: what is classified in place of the file of that name, or why it cannot be.
    """

    name: str
    text: str | None = None
    time: float | None = None
    image: ImageSource | ImageError | None = None

    @property
    def identity(self) -> tuple[str, str | None, float | None]:
        """What a record repeats of it."""
        return self[:3]


def expand(arguments: Iterable[str], listing: ImageListing) -> Iterator[str]:
    """File names, lazily, of files, folders and glob patterns (``**`` goes through folders).

    A name that matches nothing is passed on, to be reported where it is read.
    """
    for argument in arguments:
        if argument != STDIN and not os.path.lexists(argument) and glob.has_magic(argument):
            yield from _matches(argument, listing)
        else:
            yield from _files(argument, listing)


def _matches(pattern: str, listing: ImageListing) -> Iterator[str]:
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute patterns
    if "**" in pattern:  # which already names every file below
        yield from (name for name in matches if not Path(name).is_dir()) if matches else [pattern]
        return
    for name in matches or [pattern]:
        yield from _files(name, listing)


def _files(name: str, listing: ImageListing) -> Iterator[str]:
    return listing.images(name) if name != STDIN and Path(name).is_dir() else iter([name])
