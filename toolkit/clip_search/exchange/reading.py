"""Embeddings that were computed elsewhere: Parquet, or NumPy's arrays beside a list of paths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_search.exchange.exporting import IDENTITY
from clip_search.store.identity import EncoderIdentity
from clip_toolkit.errors import SearchIndexError, first_line
from clip_toolkit.stream.parquet import parquet_batches, parquet_file

_ROWS = 4096
_PATHS = ("path", "image")  # of `export_index` and of `clip-scale run`


class Batch(NamedTuple):
    """Some images: their paths, and float ``[count, dim]``."""

    paths: list[str]
    vectors: NDArray[Any]


@dataclass(frozen=True)
class Embeddings:
    """Where embeddings are.

    Attributes:
        file: ``.parquet``, a folder of such files, or ``.npy`` of float ``[n, dim]``.
        paths: of an array, a text file with a path a line.
        path_column: of Parquet; default ``path`` or else ``image``.
        embedding_column: likewise, of lists of numbers. Rows without one are left out.
    """

    file: Path
    paths: Path | None = None
    path_column: str | None = None
    embedding_column: str = "embedding"

    def identity(self) -> EncoderIdentity | None:
        """Return the encoder that the files name; None where they name none.

        Raises:
            SearchIndexError: they name several, or cannot be read.
        """
        if self._is_array:
            return None
        opened = (parquet_file(file, file, SearchIndexError) for file in self._files())
        found = {(parquet.schema_arrow.metadata or {}).get(IDENTITY) for parquet in opened}
        if len(found) > 1:
            raise SearchIndexError(f"{self.file}: its files name different encoders. Import them one by one.")
        (told,) = found
        try:
            return None if told is None else EncoderIdentity.from_json(told.decode())
        except (ValueError, TypeError) as error:
            raise SearchIndexError(f"{self.file}: its metadata is damaged ({first_line(error)})") from error

    def batches(self) -> Iterator[Batch]:
        """Read them, lazily.

        Raises:
            SearchIndexError: they cannot be read, or have another form.
        """
        return self._of_array() if self._is_array else self._of_parquet()

    @property
    def _is_array(self) -> bool:
        return self.file.suffix.lower() == ".npy"

    def _of_array(self) -> Iterator[Batch]:
        if self.paths is None:
            raise SearchIndexError(f"{self.file}: has no paths. Name a text file with a path a line by --paths.")
        try:
            array = np.load(self.file, mmap_mode="r", allow_pickle=False)
            names = self.paths.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise SearchIndexError(f"{self.file}: cannot be read with {self.paths} ({first_line(error)})") from error
        if array.ndim != 2 or array.dtype.kind != "f" or len(array) != len(names):
            raise SearchIndexError(
                f"{self.file}: expected floating-point numbers [{len(names)}, dim] for the {len(names)} lines of "
                f"{self.paths}, got {array.dtype} {list(array.shape)}"
            )
        for start in range(0, len(names), _ROWS):
            yield Batch(names[start : start + _ROWS], np.asarray(array[start : start + _ROWS]))

    def _of_parquet(self) -> Iterator[Batch]:
        for file in self._files():
            parquet = parquet_file(file, file, SearchIndexError)
            names = parquet.schema_arrow.names
            path = self.path_column or next((name for name in _PATHS if name in names), _PATHS[0])
            for column in (path, self.embedding_column):
                if column not in names:
                    raise SearchIndexError(f"{file}: expected a column '{column}', found {', '.join(names)}")
            columns = [path, self.embedding_column]
            for batch in parquet_batches(parquet, file, SearchIndexError, columns, rows=_ROWS):
                yield self._batch(file, *(batch.column(name) for name in columns))

    def _batch(self, file: Path, paths: Any, lists: Any) -> Batch:
        there = lists.is_valid()
        lists, names = lists.filter(there), paths.filter(there).to_pylist()
        values = lists.flatten().to_numpy(zero_copy_only=False) if hasattr(lists, "flatten") else np.empty(0)
        if values.dtype.kind != "f" or not all(isinstance(name, str) for name in names):
            raise SearchIndexError(
                f"{file}: expected texts and lists of floating-point numbers, found {paths.type} and {lists.type}"
            )
        lengths = set(lists.value_lengths().to_pylist())
        if len(lengths) > 1 or len(values) != sum(lengths) * len(names):
            raise SearchIndexError(f"{file}: expected embeddings of one length, found {sorted(lengths)}")
        return Batch(names, values.reshape(len(names), -1))

    def _files(self) -> list[Path]:
        files = sorted(self.file.glob("*.parquet")) if self.file.is_dir() else [self.file]
        if not files:
            raise SearchIndexError(f"{self.file}: has no Parquet files")
        return files
