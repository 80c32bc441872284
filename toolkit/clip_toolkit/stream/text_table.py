"""A CSV file of images and the texts that go with them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from clip_toolkit.errors import TextError
from clip_toolkit.stream.inputs import Input

TEXT_COLUMN = "text"


def read_texts(path: Path, column: str = TEXT_COLUMN) -> Iterator[Input]:
    """Images and their texts, lazily, in the order of the lines.

    Args:
        path: a CSV file in UTF-8 with a heading: the column ``path``, of names that start from the file's own folder,
            and one of texts. Other columns are passed over, so that a manifest of ``clip-train`` will do.
        column: heading of the texts.

    Raises:
        TextError: the file cannot be read, lacks a column, or a line lacks its path; the message names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, restkey="", restval="")
            _check_columns(path, rows.fieldnames or (), column)
            for line, row in enumerate(rows, 2):
                if not row["path"].strip():
                    raise TextError(f"{path}, line {line}: the path is missing.")
                yield Input(str(path.parent / row["path"]), row[column])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TextError(f"{path}: cannot be read as a CSV file in UTF-8 ({error})") from error


def _check_columns(path: Path, found: Sequence[str], column: str) -> None:
    for name in ("path", column):
        if name not in found:
            hint = " Name the one with the texts with --text-column." if name == TEXT_COLUMN else ""
            raise TextError(f"{path}: expected a column '{name}', found {', '.join(found) or 'none'}.{hint}")
