"""Batches as data engines have them, mappings or Arrow tables, to images and from records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_scale.errors import SourceError
from clip_toolkit.errors import ImageError
from clip_toolkit.images.sources import NamedBytes
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.tasks import NOVELTY
from clip_toolkit.stream.inputs import Input
from clip_toolkit.stream.records import EMBEDDING, PROBABILITY, Record
from clip_toolkit.stream.writers import import_pyarrow, schema
from clip_toolkit.text.pairs import check_pairing


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read: ``bytes`` of image files, their ``path``, a ``text`` for each."""

    bytes: str = "bytes"
    path: str = "path"
    text: str = "text"


def column_names(batch: Any) -> list[str]:
    """Return the names of a batch's columns.

    Raises:
        SourceError: it is neither a mapping nor an Arrow table.
    """
    if isinstance(batch, Mapping):
        return [*batch]
    if hasattr(batch, "schema"):
        return [*batch.schema.names]
    raise SourceError(f"batch: expected a mapping of columns or a pyarrow Table, got {type(batch).__name__}")


def inputs_of(batch: Any, columns: Columns, spec: ModelSpec) -> Iterator[Input]:
    """Yield the images of a batch, and their texts if the model reads them.

    Raises:
        SourceError: the batch has neither bytes nor paths, or they are something else.
        TextError: the model reads texts, and there are none.
    """
    names = column_names(batch)
    if columns.bytes not in names and columns.path not in names:
        raise SourceError(
            f"batch: expected a column '{columns.bytes}' or '{columns.path}', found {', '.join(names) or 'none'}"
        )
    check_pairing(spec, spec.text is not None and columns.text in names)
    wanted = [columns.bytes, columns.path, *([columns.text] if spec.text is not None else [])]
    read = {name: _values(batch, name) for name in wanted if name in names}
    for number, row in enumerate(zip(*read.values(), strict=True)):
        yield input_of(dict(zip(read, row, strict=True)), columns, number)


def input_of(row: Mapping[str, Any], columns: Columns, number: int, default: str = "<bytes>") -> Input:
    """Return the image of a row; ``default`` names one without a path.

    Raises:
        SourceError: a value is of another type than the column's.
    """
    path, text = (_text(row.get(name), name, number) for name in (columns.path, columns.text))
    name = path if path is not None else default
    if columns.bytes not in row:
        return Input(name, text, image=ImageError("the row has no path") if path is None else None)
    content = row[columns.bytes]
    if content is None:
        return Input(name, text, image=ImageError(f"{name}: the row has no bytes"))
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise SourceError(
            f"column '{columns.bytes}', row {number}: expected the bytes of an image file, got "
            f"{type(content).__name__}. Give files as they are, not decoded."
        )
    return Input(name, text, image=NamedBytes(bytes(content), name))


def result_columns(template: Record, names: Iterable[str], columns: Columns) -> tuple[list[str], list[str]]:
    """Return the names of a batch's columns that stay, and of the record's that are added.

    Raises:
        SourceError: a name would be twice.
    """
    kept = [name for name in names if name != columns.bytes]
    added = [name for name in template if name not in ("image", "text")]  # which are columns of the batch
    twice = [name for name in added if name in kept]
    if twice:
        raise SourceError(f"batch: has a column '{twice[0]}' already, which the results need. Rename it first.")
    return kept, added


def numpy_column(name: str, values: Sequence[Any], spec: ModelSpec, embedding: str | None) -> NDArray[Any]:
    """Return a column of records: float64 for probabilities and novelty, ``[rows, dim]`` for embeddings; else NaN.

    All others are of dtype object, and None where missing.
    """
    if name == EMBEDDING:
        missing = [math.nan] * spec.encoder.dim
        return np.array([missing if row is None else row for row in values], embedding).reshape(-1, spec.encoder.dim)
    if name in ("probability", NOVELTY) or name.startswith(PROBABILITY):
        return np.array(values, np.float64)  # of None makes NaN
    return np.fromiter(values, object, len(values))


def arrow_schema(spec: ModelSpec, added: Iterable[str], embedding: str | None) -> Any:
    """Return the Arrow schema of the columns that are added."""
    arrow = import_pyarrow()
    fields = schema(arrow, spec, embedding=embedding)
    return arrow.schema([fields.field(name) for name in added])


def arrow_table(batch: Any, records: list[Record], kept: Iterable[str], added: Any) -> Any:
    """Return a pyarrow Table of the columns that stay and those of the records, whose schema is ``added``."""
    table = import_pyarrow().Table.from_pylist(records, added)
    for position, name in enumerate(kept):
        table = table.add_column(position, batch.schema.field(name), batch.column(name))
    return table


def _values(batch: Any, name: str) -> list[Any]:
    column = batch[name] if isinstance(batch, Mapping) else batch.column(name)
    if getattr(getattr(column, "dtype", None), "kind", None) == "S":
        raise SourceError(f"column '{name}': numpy's type {column.dtype} drops zeros at the end. Use dtype=object.")
    return column.to_pylist() if hasattr(column, "to_pylist") else list(column)


def _text(value: Any, name: str, number: int) -> str | None:
    if value is not None and not isinstance(value, str):
        raise SourceError(f"column '{name}', row {number}: expected text, got {type(value).__name__}")
    return value
