"""Files of a notebook's answers: ``.npz``, ``.safetensors``, ``.csv`` and ``.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from clip_export.data.npz import read_npz
from clip_export.expect.answers import Answers, check
from clip_toolkit.errors import ExpectError
from clip_toolkit.files.csv_table import read_rows

_PREFIXES = {"logit:": "logits", "p:": "probabilities"}
_SHARED = ("image", "bytes", "features", "path")  # by all heads
_SHOWN = 3  # of missing files


def read_answers(path: Path, head: str = "") -> Answers:
    """Read and check a file of answers.

    Args:
        path: ``.npz`` or ``.safetensors`` with ``image`` (paths, relative to the file's folder or absolute), ``bytes``
            (encoded images) or ``features``, with ``logits`` or ``probabilities``, and perhaps ``labels``; or ``.csv``
            or ``.jsonl`` with ``path`` and a column for each label, ``logit:NAME`` or ``p:NAME``, or just ``label``.
        head: of several, whose answers stand with its name in front, as in ``age.logits`` or ``age.p:NAME``.

    Raises:
        ExpectError: it is missing, damaged, of another kind, holds no usable answers, or images are not there.
    """
    if path.suffix not in _READERS:
        raise ExpectError(f"{path}: expected a file of answers ending in {', '.join(_READERS)}")
    if not path.is_file():
        raise ExpectError(f"{path}: there is no such file of answers. Make one in the notebook (docs/notebooks.md).")
    try:
        answers = _READERS[path.suffix](path, head)
        check(answers)
        _check_images(answers.images, path.absolute().parent)
    except ExpectError as error:
        of_head = f"answers of {head}: " if head else ""
        raise ExpectError(f"{path}: {of_head}{str(error).removeprefix(f'{path}: ')}") from error
    return answers


def _of_head(columns: Mapping[str, Any], head: str) -> dict[str, Any]:
    """Return the columns that name the images, and those of a head without its name."""
    if not head:
        return dict(columns)
    shared = {name: values for name, values in columns.items() if name in _SHARED}
    own = {name.removeprefix(f"{head}."): v for name, v in columns.items() if name.startswith(f"{head}.")}
    if not own:
        raise ExpectError(f"expected columns such as {head}.logits or {head}.p:NAME, found {', '.join(columns)}.")
    return shared | own


def _check_images(images: Sequence[str | bytes], folder: Path) -> None:
    missing = [image for image in images if isinstance(image, str) and not Path(image).is_file()]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise ExpectError(
            f"{len(missing)} of {len(images)} images are not there: {', '.join(missing[:_SHOWN])}{more}. Paths count "
            f"from {folder}; move the file back beside its images, or save absolute paths."
        )


def _from_npz(path: Path, head: str) -> Answers:
    return _from_columns(_of_head(read_npz(path, ExpectError), head), path)


def _from_safetensors(path: Path, head: str) -> Answers:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            notes = file.metadata() or {}
            columns: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        lists = ("image", "labels", "label", f"{head}.labels", f"{head}.label")
        columns |= {name: json.loads(notes[name]) for name in lists if name in notes}
    except (safetensors.SafetensorError, OSError, ValueError, TypeError) as error:
        raise ExpectError(f"not a readable safetensors file of answers ({error})") from error
    return _from_columns(_of_head(columns, head), path)


def _from_columns(columns: Mapping[str, Any], path: Path) -> Answers:
    features = columns.get("features")
    images: tuple[str | bytes, ...] = ()
    if "image" in columns:
        images = tuple(_located(str(name), path) for name in _list(columns["image"], "image"))
    elif "bytes" in columns:
        images = tuple(_image_bytes(item) for item in _list(columns["bytes"], "bytes"))
    elif features is None:
        raise ExpectError(f"expected image, bytes or features, found {', '.join(columns) or 'nothing'}.")
    return Answers(
        images,
        None if images or features is None else np.asarray(_numbers(features, "features"), np.float32),
        _numbers(columns["logits"], "logits") if "logits" in columns else None,
        _numbers(columns["probabilities"], "probabilities") if "probabilities" in columns else None,
        tuple(map(str, _list(columns["label"], "label"))) if "label" in columns else None,
        tuple(map(str, _list(columns["labels"], "labels"))) if "labels" in columns else None,
    )


def _list(values: Any, name: str) -> list[Any]:
    found = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(found, list):
        raise ExpectError(f"{name}: expected a list, got {type(found).__name__}.")
    return found


def _image_bytes(item: Any) -> bytes:
    if not isinstance(item, bytes):
        raise ExpectError(f"bytes: expected encoded images, got {type(item).__name__}.")
    return item


def _numbers(values: Any, name: str) -> NDArray[np.float64]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise ExpectError(f"{name}: expected numbers, got {array.dtype}.")
    return (array[:, None] if array.ndim == 1 else array).astype(np.float64)


def _from_csv(path: Path, head: str) -> Answers:
    rows = [(f"line {row.line}", _of_head(row.cells, head)) for row in read_rows(path, ["path"], ExpectError)]
    return _from_rows(rows, path)


def _from_jsonl(path: Path, head: str) -> Answers:
    rows = []
    try:
        for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
            if line.strip():
                rows.append((f"line {number}", json.loads(line)))
    except (OSError, ValueError, RecursionError) as error:
        raise ExpectError(f"line {len(rows) + 1}: cannot be read as JSON lines in UTF-8 ({error})") from error
    for where, row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("path"), str):
            raise ExpectError(f"{where}: expected an object with a path.")
    return _from_rows([(where, _of_head(row, head)) for where, row in rows], path)


def _from_rows(rows: Sequence[tuple[str, Mapping[str, Any]]], path: Path) -> Answers:
    images = tuple(_located(row["path"], path) for _, row in rows)
    names = list(rows[0][1]) if rows else []
    found = {
        kind: [name for name in names if name.startswith(prefix) and len(name) > len(prefix)]
        for prefix, kind in _PREFIXES.items()
    }
    labels = [[name.partition(":")[2] for name in columns] for columns in found.values() if columns]
    if len(labels) == 2 and set(labels[0]) != set(labels[1]):
        raise ExpectError(f"logits are of {', '.join(labels[0])}, but probabilities of {', '.join(labels[1])}.")
    tables = {
        kind: _cells(rows, [f"{prefix}{label}" for label in labels[0]])
        for prefix, kind in _PREFIXES.items()
        if found[kind]
    }
    if not tables and rows and "label" not in names:
        raise ExpectError(f"expected columns logit:NAME, p:NAME or label beside path, found {', '.join(names)}.")
    decisions = None if tables else tuple(str(row.get("label", "")).strip() for _, row in rows)
    return Answers(images, None, tables.get("logits"), tables.get("probabilities"), decisions, _names(labels))


def _names(labels: Sequence[Sequence[str]]) -> tuple[str, ...] | None:
    return tuple(labels[0]) if labels else None


def _cells(rows: Sequence[tuple[str, Mapping[str, Any]]], columns: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[_cell(row.get(name), where, name) for name in columns] for where, row in rows], np.float64)


def _cell(value: Any, where: str, column: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ExpectError(f"{where}: expected a number in {column}, got {value!r}.") from error


def _located(name: str, path: Path) -> str:
    return str(path.absolute().parent / name)


_READERS: dict[str, Callable[[Path, str], Answers]] = {
    ".npz": _from_npz,
    ".csv": _from_csv,
    ".jsonl": _from_jsonl,
    ".safetensors": _from_safetensors,
}
