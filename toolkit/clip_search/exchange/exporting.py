"""An index's embeddings as a Parquet file, or as a table of LanceDB."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from clip_search.store.database import TIMEOUT, Database
from clip_search.store.identity import EncoderIdentity
from clip_search.store.opening import open_database
from clip_toolkit.errors import MissingDependencyError, OutputError, first_line
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.stream.writers import import_pyarrow

IDENTITY = b"clip_toolkit.embeddings"
"""Key of the metadata that name the encoder."""

LANCE = ".lance"
_ROWS = 2**16  # 64 MiB at 512 numbers


def export_index(index: Path, output: Path, *, timeout: float = TIMEOUT) -> int:
    """Write ``path`` (relative to the indexed folder) and ``embedding`` (of length 1) of each image, by path.

    Parquet gets float16, as the index has them, and LanceDB float32 (docs/decisions.md).

    Args:
        index: folder of the index.
        output: ``NAME.parquet``; or ``FOLDER/NAME.lance``, the table NAME of the LanceDB database in FOLDER.
        timeout: seconds to wait for another process that writes the index.

    Returns:
        The number of images.

    Raises:
        SearchIndexError: there is no index, or it is damaged or locked.
        OutputError: another suffix, a table that is there already, or the output cannot be written.
        MissingDependencyError: pyarrow or LanceDB is not installed.
    """
    if output.suffix not in (".parquet", LANCE):
        raise OutputError(f"{output}: expected a name ending in .parquet or {LANCE}")
    database, identity = open_database(index.resolve(), None, False, timeout)
    try:
        dtype = np.dtype(np.float32 if output.suffix == LANCE else np.float16)
        schema = _schema(identity, dtype)
        batches = _batches(database, identity.dim, dtype, schema)
        (_write_lance if output.suffix == LANCE else _write_parquet)(output, schema, batches)
        return database.count()
    finally:
        database.close()


def _schema(identity: EncoderIdentity, dtype: np.dtype[Any]) -> Any:
    arrow = import_pyarrow()
    columns = [("path", arrow.string()), ("embedding", arrow.list_(arrow.from_numpy_dtype(dtype), identity.dim))]
    return arrow.schema(columns, metadata={IDENTITY: identity.to_json()})


def _batches(database: Database, dim: int, dtype: np.dtype[Any], schema: Any) -> Iterator[Any]:
    arrow = import_pyarrow()
    rows = database.embeddings()
    while some := list(islice(rows, _ROWS)):
        paths, vectors = zip(*some, strict=True)
        values = arrow.array(np.frombuffer(b"".join(vectors), "<f2").astype(dtype))
        columns = [
            arrow.array([path.decode("utf-8", "backslashreplace") for path in paths]),
            arrow.FixedSizeListArray.from_arrays(values, dim),
        ]
        yield arrow.RecordBatch.from_arrays(columns, schema=schema)


def _write_parquet(output: Path, schema: Any, batches: Iterator[Any]) -> None:
    with written_atomically(output) as temporary, import_pyarrow().parquet.ParquetWriter(temporary, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_lance(output: Path, schema: Any, batches: Iterator[Any]) -> None:
    try:
        import lancedb
    except ImportError as error:
        raise MissingDependencyError("LanceDB is not installed: pip install 'clip-toolkit[lance]'") from error
    if output.exists():
        raise OutputError(f"{output}: is there already. Remove it, or name another.")
    database = lancedb.connect(output.absolute().parent)
    try:
        table = database.create_table(output.stem, schema=schema)
        for batch in batches:  # from this thread, which SQLite insists on
            table.add(import_pyarrow().Table.from_batches([batch]))
    except Exception as error:  # Lance raises its own classes
        database.drop_table(output.stem, ignore_missing=True)
        raise OutputError(f"{output}: cannot be written ({first_line(error)})") from error
