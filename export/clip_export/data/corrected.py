"""Training data with corrected answers, as a manifest that names the side of each image."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from clip_toolkit.data.dataset import TRAIN, VALIDATION, Dataset
from clip_toolkit.errors import DatasetError
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.files.csv_table import SEPARATOR, read_rows
from clip_toolkit.files.stamp import sha256_of
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION

Cells = Mapping[str, str]


def write_corrected(dataset: Dataset, corrections: Path, is_held_out: Callable[[str], bool], output: Path) -> None:
    """Write a data set and its corrections as one manifest.

    A correction of an image of the data set replaces its answer and leaves it on its side; all others are learnt from.

    Args:
        dataset: the data set. Sides that it names are kept.
        corrections: manifest of corrected images.
        is_held_out: tells by an image's SHA-256 whether to hold it out, where the data set names no side.
        output: the manifest to write, with absolute paths.

    Raises:
        DatasetError: nothing would be held out, the corrections or an image of theirs cannot be read, or they have a
            label that the data lack.
        OutputError: the manifest cannot be written.
    """
    corrected = _read_corrections(dataset, corrections)
    rows = list(_rows(dataset, corrected, is_held_out))
    if not any(row["split"] != TRAIN for row in rows):
        raise DatasetError(
            f"{dataset.source}: holds no image that the head was judged by. Name its training data with --data."
        )
    with written_atomically(output) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)


def _rows(
    dataset: Dataset, corrected: dict[str, Cells], is_held_out: Callable[[str], bool]
) -> Iterator[dict[str, str]]:
    has_sides = any(dataset.sides)
    for index, file in enumerate(dataset.files):
        digest = _digest(file)
        side = VALIDATION if is_held_out(digest) else TRAIN
        cells = corrected.pop(digest, None)
        answer = _answer(dataset, index) if cells is None else {name: cells[name] for name in _columns(dataset)}
        given = (dataset.sides[index] or TRAIN) if has_sides else side
        yield {"path": str(file.resolve()), **answer, "split": given}
    for cells in corrected.values():
        yield {"path": cells["path"], **{name: cells[name] for name in _columns(dataset)}, "split": TRAIN}


def _read_corrections(dataset: Dataset, manifest: Path) -> dict[str, Cells]:
    """Return the rows of the corrections by the content of their images, with absolute paths."""
    found: dict[str, Cells] = {}
    for row in read_rows(manifest, ("path", *_columns(dataset)), DatasetError):
        _check_labels(dataset, row.cells, manifest, row.line)
        path = (manifest.parent / row.cells["path"]).resolve()
        digest = _digest(path)
        if not digest:
            raise DatasetError(f"{manifest}, line {row.line}: {path} cannot be read. Put it back, or remove the row.")
        found[digest] = row.cells | {"path": str(path)}
    return found


def _check_labels(dataset: Dataset, cells: Cells, manifest: Path, line: int) -> None:
    if dataset.task == REGRESSION:
        return
    named = cells["label"].split(SEPARATOR) if dataset.task == MULTI_LABEL else [cells["label"]]
    unknown = {name.strip() for name in named} - {*dataset.labels, ""}
    if unknown:
        raise DatasetError(f"{manifest}, line {line}: the training data have no label {min(unknown)!r}.")


def _columns(dataset: Dataset) -> tuple[str, ...]:
    return dataset.labels if dataset.task == REGRESSION else ("label",)


def _answer(dataset: Dataset, index: int) -> dict[str, str]:
    target = dataset.targets[index]
    if dataset.task == REGRESSION:
        return {name: repr(float(value)) for name, value in zip(dataset.labels, target, strict=True)}
    if dataset.task == MULTI_LABEL:
        return {"label": SEPARATOR.join(name for name, value in zip(dataset.labels, target, strict=True) if value)}
    return {"label": dataset.labels[target]}


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; an empty text where it cannot be read, which the training will tell."""
    try:
        return sha256_of(path)
    except OSError:
        return ""
