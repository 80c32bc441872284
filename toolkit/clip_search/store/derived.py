"""The derived files of an index, as they must be: opened where they fit the database, rebuilt where they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip_search.scan.approximate import FILE, read_graph, write_graph
from clip_search.scan.matrix import FILES, Matrix, read_matrix, write_matrix
from clip_search.store.database import Database
from clip_toolkit.errors import SearchIndexError

_MATRIX, _GRAPH = "matrix", "graph"

DERIVED = (*FILES, FILE)
"""Names of the derived files."""

VOID_WHEN_CHANGED = (_MATRIX, _GRAPH)
"""Keys of the meta table that hold the derived files' digests, and are deleted with the first row that changes."""

_ATTEMPTS = 3


class Derived:
    """Matrix and graph of an index, opened once and again when the database has changed."""

    def __init__(self, database: Database, folder: Path, dim: int) -> None:
        """Open nothing yet."""
        self._database, self._folder, self._dim = database, folder, dim
        self._matrix: Matrix | None = None
        self._graph: tuple[str, Any] | None = None

    def matrix(self) -> Matrix:
        """The embeddings as they are in the database now.

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
            self._void(_MATRIX, digest)
        raise SearchIndexError(f"{self._folder}: another process keeps changing it. Wait for it and try again.")

    def graph(self, matrix: Matrix) -> Any:
        """The approximate index of a matrix.

        Raises:
            MissingDependencyError: usearch is not installed.
            SearchIndexError, OutputError: as in `matrix`.
        """
        for _ in range(_ATTEMPTS):
            digest = str(self._database.meta(_GRAPH) or self._write_graph(matrix))
            if self._graph is None or self._graph[0] != digest:
                graph = read_graph(self._folder, matrix, digest)
                self._graph = None if graph is None else (digest, graph)
            if self._graph is not None:
                return self._graph[1]
            self._void(_GRAPH, digest)
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
        return digest

    def _write_graph(self, matrix: Matrix) -> str:
        """Minutes of work: not while the database is locked, and noted only where it still fits."""
        self._graph = None  # as above
        digest = write_graph(self._folder, matrix)
        with self._database.writing():
            if self._database.meta(_MATRIX) == matrix.digest:
                self._database.set_meta(_GRAPH, digest)
        return digest

    def _void(self, key: str, digest: str | bytes) -> None:
        with self._database.writing():
            if self._database.meta(key) == digest:
                self._database.forget(key)
