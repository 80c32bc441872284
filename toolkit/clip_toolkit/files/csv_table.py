"""Rows of a CSV file with a heading, or of JSON lines, each with its line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from clip_toolkit.errors import ClipToolkitError

SUFFIXES = (".csv", ".jsonl")

SEPARATOR = ";"
"""Between several values in one cell."""


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
        path: a file in UTF-8. One that ends in ``.jsonl`` has an object a line, and the first one names the columns;
            lists become one cell, joined by `SEPARATOR`, and null an empty one.
        needed: columns that must be there, ``path`` among them.
        error: what is raised.
        hint: what to do where a column is missing.

    Raises:
        ClipToolkitError: an ``error``: the file cannot be read, lacks a column, or a row its path.
    """
    form = "JSON lines" if path.suffix.lower() == ".jsonl" else "a CSV file"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = _JsonReader(file) if form == "JSON lines" else csv.DictReader(file, restkey="", restval="")
            _check_columns(path, reader.fieldnames or (), needed, error, hint)
            for cells in reader:
                if not cells["path"].strip():
                    raise error(f"{path}, line {reader.line_num}: the path is missing.")
                yield Row(reader.line_num, cells)
    except (OSError, UnicodeDecodeError, csv.Error, _JsonError) as reason:
        if isinstance(reason, ClipToolkitError):
            raise
        raise error(f"{path}: cannot be read as {form} in UTF-8 ({reason})") from reason


class _JsonError(Exception):
    pass


class _JsonReader:
    """Objects, one a line, read as `csv.DictReader` reads rows."""

    def __init__(self, file: TextIO) -> None:
        self.line_num, self._file = 0, file
        self._next = self._read()
        self.fieldnames = tuple(self._next or ())

    def __iter__(self) -> Iterator[dict[str, str]]:
        while self._next is not None:
            yield {name: self._cell(self._next.get(name)) for name in self.fieldnames}
            self._next = self._read()

    def _read(self) -> dict[str, Any] | None:
        for line in self._file:
            self.line_num += 1
            if line.strip():
                try:
                    found = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise _JsonError(f"line {self.line_num}: {error}") from error
                if not isinstance(found, dict):
                    raise _JsonError(f"line {self.line_num}: expected an object, got {line.strip()[:40]!r}")
                return found
        return None

    def _cell(self, value: Any) -> str:
        items = value if isinstance(value, list) else [value]
        if any(isinstance(item, (dict, list)) for item in items):
            raise _JsonError(f"line {self.line_num}: expected text, numbers or a list of them, got {value!r:.60}")
        texts = ["" if item is None else item if isinstance(item, str) else json.dumps(item) for item in items]
        if isinstance(value, list) and any(SEPARATOR in text for text in texts):
            raise _JsonError(
                f"line {self.line_num}: {SEPARATOR!r} separates values: none may hold it, got {value!r:.60}"
            )
        return SEPARATOR.join(texts)


def _check_columns(
    path: Path, found: Sequence[str], needed: Sequence[str], error: type[ClipToolkitError], hint: str
) -> None:
    for name in needed:
        if name not in found:
            raise error(f"{path}: expected a column '{name}', found {', '.join(found) or 'none'}.{hint}")
