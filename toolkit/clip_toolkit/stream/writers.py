"""Records into a file, in the format asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from clip_toolkit.errors import MissingDependencyError
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.listing import Style
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION
from clip_toolkit.stream.records import Record, lines, probability_columns

_ROWS = 4096  # of a Parquet row group


def write(records: Iterable[Record], style: Style, path: Path, spec: ModelSpec, *, timed: bool = False) -> None:
    """Write a model's records to a file, which appears whole or not at all; ``timed`` ones have a ``time``.

    Raises:
        OutputError: the file cannot be written.
        MissingDependencyError: Parquet without pyarrow.
    """
    with written_atomically(path) as temporary:
        if style.form == "parquet":
            _write_parquet(records, temporary, _schema(import_pyarrow(), spec, timed=timed))
            return
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.writelines(f"{line}\n" for line in lines(records, style))


def import_pyarrow() -> Any:
    """pyarrow, with its Parquet module, imported only when it is needed.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("Parquet needs pyarrow: pip install 'clip-toolkit[parquet]'") from error
    return pa


def _write_parquet(records: Iterable[Record], path: Path, schema: Any) -> None:
    arrow = import_pyarrow()
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        for rows in _groups(iter(records)):
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))


def _groups(records: Iterator[Record]) -> Iterator[list[Record]]:
    while rows := [_decodable(item) for item in islice(records, _ROWS)]:
        yield rows


def _decodable(item: Record) -> Record:
    """Parquet's strings are UTF-8: bytes of a file name that are not appear as escapes."""
    return {
        key: value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if isinstance(value, str)
        else value
        for key, value in item.items()
    }


def _schema(arrow: Any, spec: ModelSpec, *, timed: bool) -> Any:
    score = arrow.struct([("label", arrow.string()), ("probability", arrow.float64())])
    columns = [
        ("image", arrow.string()),
        ("label", arrow.string()),
        ("probability", arrow.float64()),
        ("top", arrow.list_(score)),
        ("provider", arrow.string()),
        ("error", arrow.string()),
    ]
    if timed:
        columns.append(("time", arrow.float64()))
    if spec.text is not None:
        columns += [("text", arrow.string()), ("text_truncated", arrow.bool_())]
    if spec.task == MULTI_LABEL:
        columns.append(("labels", arrow.list_(arrow.string())))
    if spec.task == REGRESSION:
        columns.append(("values", arrow.struct([(name, arrow.float64()) for name in spec.labels])))
    columns += [(name, arrow.float64()) for name in probability_columns(spec)]
    return arrow.schema(columns)
