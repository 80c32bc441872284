"""A labelled data set as a CSV file or JSON lines: ``path,label``, and optionally ``split`` and ``group``.

With several labels an image, they stand in the one column, apart by semicolons; an empty cell means none of them. For a
regression every column beside ``path``, ``split`` and ``group`` holds numbers, and its heading names them. A column of
texts, such as descriptions, is read where one is named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.data.dataset import SIDES, Dataset
from clip_toolkit.errors import DatasetError
from clip_toolkit.files.csv_table import SEPARATOR, Row, read_rows
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

_OTHER_COLUMNS = ("path", "split", "group")


def read_manifest(
    path: Path,
    task: str = SINGLE_LABEL,
    text_column: str | None = None,
    *,
    labels: Sequence[str] | None = None,
    columns: Sequence[str] = (),
) -> Dataset:
    """Read a CSV file, or JSON lines; relative paths in it start from its own folder.

    Args:
        path: the file, UTF-8, with a heading.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        text_column: heading of the column of texts, or None. Cells may be empty, but not all of them.
        labels: those of a model, which the targets are to follow; by default the file's own, in sorted order, or of a
            regression all columns that are nothing else.
        columns: headings of others to keep.

    Raises:
        DatasetError: the file cannot be read, a column or a label is missing, a label is none of ``labels``, a value is
            not a finite number, or the name of a split is unknown; the message names the line.
    """
    values = (labels or ()) if task == REGRESSION else ("label",)
    rows = _rows(path, ("path", *values, *columns, *([] if text_column is None else [text_column])))
    kept = {name: tuple(row.cells[name].strip() for row in rows) for name in columns}
    texts = None if text_column is None else _texts(rows, text_column, path)
    return replace(dataset_of(rows, path, task, labels), texts=texts, text_column=text_column, columns=kept)


def dataset_of(rows: list[Row], path: Path, task: str, labels: Sequence[str] | None = None) -> Dataset:
    """Make a data set of the rows of a manifest, which have no texts; arguments and errors are `read_manifest`'s."""
    found, targets = _READERS[task](rows, path, labels)
    if labels is None and task != REGRESSION and len(found) < (2 if task == SINGLE_LABEL else 1):
        raise DatasetError(f"{path}: expected at least 2 labels, found {', '.join(found) or 'none'}.")
    return Dataset(
        source=path,
        root=path.parent,
        task=task,
        labels=found,
        files=tuple(path.parent / row.cells["path"] for row in rows),
        targets=targets,
        sides=tuple(_side(row, path) for row in rows),
        groups=tuple((row.cells.get("group") or "").strip() for row in rows),
    )


def _rows(path: Path, needed: tuple[str, ...]) -> list[Row]:
    rows = list(read_rows(path, needed, DatasetError))
    if not rows:
        raise DatasetError(f"{path}: there are no images in it.")
    return rows


def _texts(rows: list[Row], column: str, path: Path) -> tuple[str, ...]:
    """Return the texts, taken out of the rows: what is left of a regression's are its values."""
    if column in ("label", *_OTHER_COLUMNS):
        raise DatasetError(f"{path}: the column '{column}' has a meaning of its own and cannot hold the texts.")
    texts = tuple(row.cells.pop(column) for row in rows)
    if not any(text.strip() for text in texts):
        raise DatasetError(f"{path}: every text in column '{column}' is empty. Name another with --text-column.")
    return texts


def _single(rows: list[Row], path: Path, known: Sequence[str] | None) -> tuple[tuple[str, ...], NDArray[Any]]:
    names = [row.cells["label"].strip() for row in rows]
    if "" in names:
        line = rows[names.index("")].line
        raise DatasetError(f"{path}, line {line}: the label is missing. Add it or remove the line.")
    labels = _labels([{name} for name in names], rows, path, known)
    return labels, np.array([labels.index(name) for name in names])


def _multi(rows: list[Row], path: Path, known: Sequence[str] | None) -> tuple[tuple[str, ...], NDArray[Any]]:
    named = [{part.strip() for part in row.cells["label"].split(SEPARATOR)} - {""} for row in rows]
    labels = _labels(named, rows, path, known)
    if not any(named):
        raise DatasetError(f"{path}: no image has a label.")
    return labels, np.array([[label in names for label in labels] for names in named], np.float32)


def _labels(named: list[set[str]], rows: list[Row], path: Path, known: Sequence[str] | None) -> tuple[str, ...]:
    if known is None:
        return tuple(sorted(set().union(*named)))
    for names, row in zip(named, rows, strict=True):
        unknown = names - {*known}
        if unknown:
            raise DatasetError(f"{path}, line {row.line}: {unknown_label(min(unknown), known)}")
    return tuple(known)


def unknown_label(name: str, known: Sequence[str]) -> str:
    """Return the sentence about a label that a model lacks."""
    return f"the model has no label {name!r}; it has {shorten(', '.join(known), 200, placeholder=' ...')}."


def _values(rows: list[Row], path: Path, known: Sequence[str] | None) -> tuple[tuple[str, ...], NDArray[Any]]:
    columns = known or [name for name in rows[0].cells if name not in _OTHER_COLUMNS and name]
    if not columns:
        raise DatasetError(f"{path}: expected a column of numbers beside 'path', found none.")
    values = [[_number(row, name, path) for name in columns] for row in rows]
    return tuple(columns), np.array(values, np.float32)


def _number(row: Row, column: str, path: Path) -> float:
    text = row.cells[column]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DatasetError(f"{path}, line {row.line}: expected a number in column '{column}', got {text!r}.")
    return value


def _side(row: Row, path: Path) -> str:
    name = (row.cells.get("split") or "").strip().lower()
    if name and name not in SIDES:
        raise DatasetError(f"{path}, line {row.line}: expected the split train, val or test, got {name!r}.")
    return SIDES.get(name, "")


_READERS = {SINGLE_LABEL: _single, MULTI_LABEL: _multi, REGRESSION: _values}
