"""Parquet files that come from anywhere, read batch by batch; what is wrong with one is said by its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from clip_toolkit.errors import ClipToolkitError, first_line
from clip_toolkit.stream.writers import import_pyarrow


def parquet_file(source: Path | IO[bytes], name: object, error: type[ClipToolkitError]) -> Any:
    """Open a file as ``pyarrow.parquet.ParquetFile``.

    Args:
        source: a path, or a file open for reading.
        name: for errors.
        error: class of the error if it cannot be read.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    arrow = import_pyarrow()
    try:
        return arrow.parquet.ParquetFile(source)
    except (OSError, arrow.ArrowException) as reason:
        raise unreadable(name, reason, error) from reason


def parquet_batches(
    file: Any,
    name: object,
    error: type[ClipToolkitError],
    columns: Iterable[str],
    *,
    rows: int = 2**16,
    groups: list[int] | None = None,
) -> Iterator[Any]:
    """Read columns of an open file, lazily.

    Args:
        file: of `parquet_file`.
        name: for errors.
        error: class of the error if it is damaged.
        columns: their names.
        rows: the most of a batch.
        groups: indices of row groups; default all.
    """
    try:
        yield from file.iter_batches(rows, groups, list(columns))
    except (OSError, import_pyarrow().ArrowException) as reason:
        raise unreadable(name, reason, error) from reason


def unreadable(name: object, reason: Exception, error: type[ClipToolkitError]) -> ClipToolkitError:
    """Return the error of a file that cannot be read."""
    return error(f"{name}: cannot be read as Parquet ({first_line(reason)})")
