"""Parts of a source: small descriptions that travel to a worker, which reads the images there."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from clip_scale.columns import Columns, input_of
from clip_scale.errors import SourceError
from clip_scale.stores import contents, opened
from clip_toolkit.images.sources import is_url
from clip_toolkit.stream.inputs import Input
from clip_toolkit.stream.parquet import parquet_batches, parquet_file, unreadable
from clip_toolkit.stream.pipeline import chunks

_FETCHED = 32  # images of a store that are asked for at once
_ROWS = 32  # of a row group that are in memory at once


class Part(Protocol):
    """Images that one worker classifies."""

    def inputs(self) -> Iterator[Input]:
        """Read the images, lazily and in order."""
        ...

    def identity(self) -> Any:
        """Return what tells the part from another one, as JSON can hold it."""
        ...

    def check_reach(self) -> None:
        """Raise a `SourceError` where this machine sees none of the files that the part names."""
        ...


def check_files(names: Iterable[str]) -> None:
    """Tell a machine that does not see the files of others from files that are missing.

    Raises:
        SourceError: not one of the names leads to a file here.
    """
    names = list(names)
    if not any(is_url(name) or os.path.lexists(name) for name in names):
        raise SourceError(
            f"{names[0]} and all {len(names)} files of its part are missing on {platform.node()}. Put the source where "
            "every worker sees it."
        )


@dataclass(frozen=True)
class PathPart:
    """Images by their paths."""

    items: tuple[Input, ...]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.items)

    def inputs(self) -> Iterator[Input]:
        """Name them: whoever classifies them opens them."""
        return iter(self.items)

    def identity(self) -> Any:
        """Names and texts."""
        return [item.identity for item in self.items]

    def check_reach(self) -> None:
        """Look for the images."""
        check_files(item.name for item in self.items)


@dataclass(frozen=True)
class RemotePart(PathPart):
    """Images by the URLs of one object store."""

    def inputs(self) -> Iterator[Input]:
        """Fetch them, some at once: whoever classifies them opens no URLs."""
        for some in chunks(self.items, _FETCHED):
            read = contents(item.name for item in some if item.image is None)
            yield from (item._replace(image=next(read)) if item.image is None else item for item in some)

    def check_reach(self) -> None:
        """Leave it to the reading, which ends the run where the store does not answer."""


def path_parts(items: Iterable[Input], size: int, kind: type[PathPart] = PathPart) -> Iterator[PathPart]:
    """Cut images into parts of a size."""
    return (kind(tuple(chunk)) for chunk in chunks(items, size))


@dataclass(frozen=True)
class RowGroupPart:
    """A row group of a Parquet file that holds the bytes of images.

    Attributes:
        path: of the file.
        group: number of the row group.
        start: number of its first row in the file.
        count: its rows.
        size: bytes of the file.
        columns: their names.
        wanted: those that are read.
    """

    path: str
    group: int
    start: int
    count: int
    size: int
    columns: Columns
    wanted: tuple[str, ...]

    def inputs(self) -> Iterator[Input]:
        """Read the rows; those without a path are called by the file and their number in it, from 0."""
        with open_parquet(self.path) as file:
            for number, row in enumerate(parquet_rows(self.path, file, self.wanted, [self.group]), self.start):
                yield input_of(row, self.columns, number, f"{self.path}#{number}")

    def identity(self) -> Any:
        """File and row group."""
        return [self.path, self.group, self.size, self.wanted]

    def check_reach(self) -> None:
        """Look for the file."""
        check_files([self.path])


@contextmanager
def open_parquet(name: str) -> Iterator[Any]:
    """Open a Parquet file.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        source = opened(name)
    except OSError as error:
        raise unreadable(name, error, SourceError) from error
    with source:
        yield parquet_file(source, name, SourceError)


def parquet_rows(
    name: str, file: Any, columns: Iterable[str], groups: list[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Read the rows of an open Parquet file, lazily; all of them, or those of some row groups.

    Raises:
        SourceError: it is damaged.
    """
    for batch in parquet_batches(file, name, SourceError, columns, rows=_ROWS, groups=groups):
        yield from batch.to_pylist()
