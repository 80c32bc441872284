"""Rows of a CSV file with a heading, each with its line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from clip_toolkit.errors import ClipToolkitError


class Row(NamedTuple):
    """A row.

    Attributes:
        line: of the file, counted from 1, where the row ends: cells in quotes may hold line ends.
        cells: by the heading of their columns; those that a short row lacks are empty.
    """

    line: int
    cells: dict[str, str]


def read_rows(path: Path, needed: Sequence[str], error: type[ClipToolkitError], hint: str = "") -> Iterator[Row]:
    """Read the rows, lazily; each has a ``path``.

    Args:
        path: a file in UTF-8.
        needed: columns that must be there, ``path`` among them.
        error: what is raised.
        hint: what to do where a column is missing.

    Raises:
        ClipToolkitError: an ``error``: the file cannot be read, lacks a column, or a row its path.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            _check_columns(path, reader.fieldnames or (), needed, error, hint)
            for cells in reader:
                if not cells["path"].strip():
                    raise error(f"{path}, line {reader.line_num}: the path is missing.")
                yield Row(reader.line_num, cells)
    except (OSError, UnicodeDecodeError, csv.Error) as reason:
        if isinstance(reason, ClipToolkitError):
            raise
        raise error(f"{path}: cannot be read as a CSV file in UTF-8 ({reason})") from reason


def _check_columns(
    path: Path, found: Sequence[str], needed: Sequence[str], error: type[ClipToolkitError], hint: str
) -> None:
    for name in needed:
        if name not in found:
            raise error(f"{path}: expected a column '{name}', found {', '.join(found) or 'none'}.{hint}")
