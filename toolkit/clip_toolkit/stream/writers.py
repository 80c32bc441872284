"""Records into a file, in the format asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from clip_toolkit.errors import MissingDependencyError
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.listing import Style
from clip_toolkit.spec.classifier import ModelSpec, TaskSpec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION
from clip_toolkit.stream.records import EMBEDDING, Record, lines, prefixed, probability_columns

_ROWS = 4096  # of a Parquet row group


def write(records: Iterable[Record], style: Style, path: Path, spec: ModelSpec, *, timed: bool = False) -> None:
    """Write a model's records to a file, which appears whole or not at all; ``timed`` ones have a ``time``.

    Raises:
        OutputError: the file cannot be written.
        MissingDependencyError: Parquet without pyarrow.
    """
    with written_atomically(path) as temporary, temporary.open("wb") as file:
        encode(records, style, file, spec, timed=timed)


def encode(
    records: Iterable[Record],
    style: Style,
    file: IO[bytes],
    spec: ModelSpec,
    *,
    timed: bool = False,
    embedding: str | None = None,
) -> None:
    """Write likewise to an open file; ``embedding`` is the type of the records' `EMBEDDING`, if they have one.

    Raises:
        MissingDependencyError: Parquet without pyarrow.
    """
    if style.form == "parquet":
        _write_parquet(records, file, schema(import_pyarrow(), spec, timed=timed, embedding=embedding))
        return
    file.writelines(f"{line}\n".encode("utf-8", "surrogateescape") for line in lines(records, style))


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


def _write_parquet(records: Iterable[Record], file: IO[bytes], schema: Any) -> None:
    arrow = import_pyarrow()
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        for rows in _groups(iter(records)):
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))


def _groups(records: Iterator[Record]) -> Iterator[list[Record]]:
    while rows := [_decodable(_with_heads(item)) for item in islice(records, _ROWS)]:
        yield rows


def _with_heads(item: Record) -> Record:
    """Return the record with the answers of further heads in columns of their own."""
    return item | {
        key: value for name, answer in item.get("tasks", {}).items() for key, value in prefixed(name, answer).items()
    }


def _decodable(item: Record) -> Record:
    """Parquet's strings are UTF-8: bytes of a file name that are not appear as escapes."""
    return {
        key: value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if isinstance(value, str)
        else value
        for key, value in item.items()
    }


def schema(arrow: Any, spec: ModelSpec, *, timed: bool = False, embedding: str | None = None) -> Any:
    """Return the Arrow schema of a model's records; the arguments are those of `encode`."""
    columns = [
        ("image", arrow.string()),
        *_said_columns(arrow),
        ("provider", arrow.string()),
        ("error", arrow.string()),
    ]
    if timed:
        columns.append(("time", arrow.float64()))
    if spec.text is not None:
        columns += [("text", arrow.string()), ("text_truncated", arrow.bool_())]
    columns += _columns_of_task(arrow, spec)
    if spec.novelty is not None:
        columns += [("novelty", arrow.float64()), ("is_novel", arrow.bool_())]
    if spec.coverage is not None:
        columns.append(("set", arrow.list_(arrow.string())))
    if embedding is not None:
        columns.append((EMBEDDING, arrow.list_(getattr(arrow, embedding)(), spec.encoder.dim)))
    for task in spec.tasks:
        columns += prefixed(task.name, dict(_said_columns(arrow) + _columns_of_task(arrow, task))).items()
    return arrow.schema(columns)


def _said_columns(arrow: Any) -> list[tuple[str, Any]]:
    score = arrow.struct([("label", arrow.string()), ("probability", arrow.float64())])
    return [("label", arrow.string()), ("probability", arrow.float64()), ("top", arrow.list_(score))]


def _columns_of_task(arrow: Any, spec: ModelSpec | TaskSpec) -> list[tuple[str, Any]]:
    columns = [(name, arrow.float64()) for name in probability_columns(spec)]
    if spec.task == MULTI_LABEL:
        return [("labels", arrow.list_(arrow.string())), *columns]
    if spec.task == REGRESSION:
        return [("values", arrow.struct([(name, arrow.float64()) for name in spec.labels]))]
    return columns
