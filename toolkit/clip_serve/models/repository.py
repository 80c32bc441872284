"""The files that may be served, by name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from clip_serve.errors import NOT_FOUND, RequestError
from clip_serve.models.index import Index, Indexable
from clip_serve.models.served import Opened, open_model
from clip_serve.options import ServeOptions
from clip_toolkit.errors import ModelError
from clip_toolkit.files.locate import find_model
from clip_toolkit.files.signature import signature_path

Marks = tuple[tuple[int, int, int] | None, ...]
"""Inode, size and time of change of each file, and of signatures that are asked for; None for one that is missing."""


class Repository:
    """Model files, and the search index that goes with some of them.

    Attributes:
        paths: of the files, by the names under which they are served.
    """

    def __init__(self, options: ServeOptions) -> None:
        """Take the paths, and open nothing yet.

        Raises:
            ModelError: two files have the same name.
        """
        self._options = options
        self.paths: dict[str, Path] = {}
        for model in options.models or (None,):
            path = find_model(model).path
            if path.stem in self.paths:
                raise ModelError(
                    f"{path.stem}: two models have this name. Requests name models by their files: rename one."
                )
            self.paths[path.stem] = path

    def check(self, name: str) -> None:
        """Refuse a name that no file has.

        Raises:
            RequestError: it is such a name.
        """
        if name not in self.paths:
            raise RequestError(
                f"model: {name!r} is no file of this service. There is: {', '.join(self.paths)}", NOT_FOUND
            )

    def open(self, names: Iterable[str]) -> list[Opened]:
        """Open files; raise what `open_model` does."""
        return [open_model(self.paths[name], self._options) for name in names]

    def open_index(self, models: Iterable[Indexable]) -> Index | None:
        """Open the index for the models that will be served; raise what `Index` does."""
        return Index(self._options.index, models) if self._options.index else None

    def marks(self) -> Marks:
        """Look at the files from outside."""
        signatures = map(signature_path, self.paths.values() if self._options.verify else ())
        return tuple(map(_mark, (*self.paths.values(), *signatures)))


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
