"""A CSV file of images and the texts that go with them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from clip_toolkit.errors import TextError
from clip_toolkit.files.csv_table import read_rows
from clip_toolkit.stream.inputs import Input

TEXT_COLUMN = "text"


def read_texts(path: Path, column: str = TEXT_COLUMN) -> Generator[Input]:
    """Images and their texts, lazily, in the order of the lines.

    Args:
        path: a CSV file in UTF-8 with a heading: the column ``path``, of names that start from the file's own folder,
            and one of texts. Other columns are passed over, so that a manifest of ``clip-train`` will do.
        column: heading of the texts.

    Raises:
        TextError: the file cannot be read, lacks a column, or a line lacks its path; the message names the line.
    """
    hint = " Name the one with the texts with --text-column." if column == TEXT_COLUMN else ""
    for row in read_rows(path, ("path", column), TextError, hint):
        yield Input(str(path.parent / row.cells["path"]), row.cells[column])


def check_table(path: Path, column: str = TEXT_COLUMN) -> None:
    """Read the heading and the first line, to find out before the work whether there are any.

    Pipes, which can be read once only, are left alone.

    Raises:
        TextError: as `read_texts`.
    """
    if not path.is_fifo():
        with closing(read_texts(path, column)) as rows:
            next(rows, None)
