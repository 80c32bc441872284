"""Lists of images, as CSV, JSON lines or Parquet files: of their paths, or, Parquet alone, of their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from clip_scale.columns import Columns, input_of
from clip_scale.errors import SourceError
from clip_scale.sources.parts import PathPart, RemotePart, RowGroupPart, open_parquet, parquet_rows, path_parts
from clip_scale.stores import size_of
from clip_toolkit.files.csv_table import SUFFIXES as ROWS
from clip_toolkit.files.csv_table import read_rows
from clip_toolkit.images.sources import is_url
from clip_toolkit.stream.inputs import Input
from clip_toolkit.stream.writers import import_pyarrow

SUFFIXES = (*ROWS, ".parquet")
"""How their names end."""


def manifest_parts(
    name: str, columns: Columns, part_size: int, *, has_texts: bool
) -> Iterator[PathPart | RowGroupPart]:
    """Yield the parts of a manifest; paths start from its own folder.

    Raises:
        SourceError: it cannot be read, lacks a column, or one is of the wrong type.
        MissingDependencyError: Parquet without pyarrow.
    """
    if name.lower().endswith(ROWS):
        if is_url(name):
            raise SourceError(f"{name}: such a manifest is read from this machine alone. Copy it, or use Parquet.")
        return path_parts(_rows(Path(name), columns.text if has_texts else None), part_size)
    return _parquet_parts(name, columns, part_size, has_texts=has_texts)


def _rows(path: Path, text: str | None) -> Iterator[Input]:
    for row in read_rows(path, ("path", text) if text else ("path",), SourceError):
        yield Input(_beside(str(path), row.cells["path"]), row.cells[text] if text else None)


def _parquet_parts(
    name: str, columns: Columns, part_size: int, *, has_texts: bool
) -> Iterator[PathPart | RowGroupPart]:
    with open_parquet(name) as file:
        wanted = check_columns(name, file.schema_arrow, columns, has_texts=has_texts)
        if columns.bytes not in wanted:
            kind = RemotePart if is_url(name) else PathPart
            yield from path_parts(_parquet_rows(name, file, columns, wanted), part_size, kind)
            return
        start, size = 0, size_of(name)
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            yield RowGroupPart(name, group, start, count, size, columns, wanted)
            start += count


def check_columns(name: str, schema: Any, columns: Columns, *, has_texts: bool) -> tuple[str, ...]:
    """Return the names of the columns that are read: the bytes if there are any, and the path and text.

    Raises:
        SourceError: they are not there, or of another type.
    """
    types = import_pyarrow().types
    of_bytes = (types.is_binary, types.is_large_binary, types.is_binary_view)
    of_text = (types.is_string, types.is_large_string, types.is_string_view)
    if columns.bytes not in schema.names and columns.path not in schema.names:
        raise SourceError(
            f"{name}: expected a column '{columns.bytes}' or '{columns.path}', found {', '.join(schema.names)}. "
            "Name yours with --bytes-column or --path-column."
        )
    if has_texts and columns.text not in schema.names:
        raise SourceError(f"{name}: expected a column '{columns.text}', found {', '.join(schema.names)}")
    expected = {columns.bytes: ("the bytes of image files", of_bytes), columns.path: ("paths", of_text)}
    expected |= {columns.text: ("texts", of_text)} if has_texts else {}
    wanted = tuple(column for column in expected if column in schema.names)
    for column in wanted:
        what, kinds = expected[column]
        found = schema.field(column).type
        if not any(fits(found) for fits in kinds):
            raise SourceError(f"{name}: expected {what} in the column '{column}', found the type {found}")
    return wanted


def _parquet_rows(name: str, file: Any, columns: Columns, wanted: tuple[str, ...]) -> Iterator[Input]:
    for number, row in enumerate(parquet_rows(name, file, wanted)):
        item = input_of(row, columns, number, f"{name}#{number}")
        yield item._replace(name=_beside(name, item.name)) if item.image is None else item


def _beside(manifest: str, name: str) -> str:
    """Name a file by its path from the manifest's folder.

    Raises:
        SourceError: the manifest lies in a store, and the name does not lead below its folder.
    """
    if not is_url(manifest):
        return name if is_url(name) else str(Path(manifest).parent / name)  # whose URLs nobody opens
    path = PurePosixPath(name)
    if is_url(name) or path.is_absolute() or ".." in path.parts:
        raise SourceError(f"{manifest}: expected paths below its own folder, got {name}")
    return f"{manifest.rpartition('/')[0]}/{path}"
