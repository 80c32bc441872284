"""The derived files of an index, as they must be: opened where they fit the database, rebuilt where they do not."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from clip_search.scan.matrix import FILES, Matrix, read_matrix, write_matrix
from clip_search.store.database import Database
from clip_toolkit.errors import SearchIndexError

_MATRIX = "matrix"

_GRAPH = "approximate.usearch"
"""File of a search graph, which versions before 0.2 could build; of no use any more, and removed."""

DERIVED = (*FILES, _GRAPH)
"""Names of the derived files."""

VOID_WHEN_CHANGED = (_MATRIX, "graph")
"""Keys of the meta table that hold the derived files' digests, and are deleted with the first row that changes."""

_ATTEMPTS = 3


class Derived:
    """The matrix of an index, opened once and again when the database has changed."""

    def __init__(self, database: Database, folder: Path, dim: int) -> None:
        """Open nothing yet."""
        self._database, self._folder, self._dim = database, folder, dim
        self._matrix: Matrix | None = None

    def matrix(self) -> Matrix:
        """Return the embeddings as they are in the database now.

        Raises:
            SearchIndexError: the database is damaged or locked.
            OutputError: the files have to be rebuilt and cannot be written.
        """
        for _ in range(_ATTEMPTS):  # another process may replace them between our writing and our reading
            digest = self._database.meta(_MATRIX) or self._write_matrix()
            if self._matrix is None or self._matrix.digest != digest:
                self._matrix = read_matrix(self._folder, str(digest))
            if self._matrix is not None:
                return self._matrix
            self._void(digest)
        raise SearchIndexError(f"{self._folder}: another process keeps changing it. Wait for it and try again.")

    def _write_matrix(self) -> str:
        """While no other process can write, so that the files are of one state of the database."""
        self._matrix = None  # Windows replaces no file that is mapped
        with self._database.writing():
            rows = self._database.embeddings()
            try:
                digest = write_matrix(self._folder, self._dim, self._database.count(), rows)
            except ValueError as error:
                raise self._database.damaged("an embedding has the wrong length") from error
            self._database.set_meta(_MATRIX, digest)
        with suppress(OSError):
            (self._folder / _GRAPH).unlink()
        return digest

    def _void(self, digest: str | bytes) -> None:
        with self._database.writing():
            if self._database.meta(_MATRIX) == digest:
                self._database.forget(_MATRIX)
