"""Parts of a source: small descriptions that travel to a worker, which reads the images there."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from clip_scale.columns import Columns, input_of
from clip_scale.errors import SourceError
from clip_toolkit.stream.inputs import Input
from clip_toolkit.stream.pipeline import chunks
from clip_toolkit.stream.writers import import_pyarrow

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
    if not any(map(os.path.lexists, names)):
        raise SourceError(
            f"{names[0]} and all {len(names)} files of its part are missing on {platform.node()}. Put the source where "
            "every worker sees it."
        )


@dataclass(frozen=True)
class PathPart:
    """Images by their paths."""

    items: tuple[Input, ...]

    def inputs(self) -> Iterator[Input]:
        """Name them: whoever classifies them opens them."""
        return iter(self.items)

    def identity(self) -> Any:
        """Names and texts."""
        return [item.identity for item in self.items]

    def check_reach(self) -> None:
        """Look for the images."""
        check_files(item.name for item in self.items)


def path_parts(items: Iterable[Input], size: int) -> Iterator[PathPart]:
    """Cut images into parts of a size."""
    return (PathPart(tuple(chunk)) for chunk in chunks(items, size))


@dataclass(frozen=True)
class RowGroupPart:
    """A row group of a Parquet file that holds the bytes of images.

    Attributes:
        path: of the file.
        group: number of the row group.
        start: number of its first row in the file.
        size: bytes of the file.
        columns: their names.
        wanted: those that are read.
    """

    path: str
    group: int
    start: int
    size: int
    columns: Columns
    wanted: tuple[str, ...]

    def inputs(self) -> Iterator[Input]:
        """Read the rows; those without a path are called by the file and their number in it, from 0."""
        with import_pyarrow().parquet.ParquetFile(self.path) as file:
            batches = file.iter_batches(_ROWS, [self.group], self.wanted)
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, self.start):
                yield input_of(row, self.columns, number, f"{self.path}#{number}")

    def identity(self) -> Any:
        """File and row group."""
        return [self.path, self.group, self.size, self.wanted]

    def check_reach(self) -> None:
        """Look for the file."""
        check_files([self.path])
