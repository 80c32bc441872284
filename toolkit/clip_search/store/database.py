"""The truth of an index: one SQLite file, of which all else is derived.

Paths are relative to the indexed folder, with forward slashes, as the bytes that the file system has; SQLite orders
them byte by byte. WAL lets readers read while an update writes; with ``synchronous=NORMAL`` a killed process loses at
most the batch it had not committed, and a power cut the last batches, but neither damages the file
(https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from clip_search.store.connecting import connected
from clip_toolkit.errors import SearchIndexError
from clip_toolkit.files.stamp import Stamp

TIMEOUT = 30.0
"""Seconds to wait for another process that writes."""

_FILES = "SELECT path, size, mtime_ns, ctime_ns, digest, NULL, error FROM images"
"""Rows without their embeddings."""

_COPIED = "SELECT digest FROM images WHERE embedding IS NOT NULL GROUP BY digest HAVING count(*) > 1"


_NULL = type(None)
_CELLS: tuple[type | tuple[type, ...], ...] = (bytes, int, int, int, (bytes, _NULL), (bytes, _NULL), (str, _NULL))
"""Types of the columns of a `Row`, which SQLite itself does not hold a file to."""


class Row(NamedTuple):
    """What an index holds of one file.

    Attributes:
        path: relative to the indexed folder, with forward slashes.
        size, mtime_ns, ctime_ns: the file's `Stamp`.
        digest: SHA-256 of the content; None where it could not be read.
        embedding: little-endian float16 ``[dim]``; None where there is an error.
        error: why there is no embedding.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    digest: bytes | None
    embedding: bytes | None
    error: str | None

    @property
    def stamp(self) -> Stamp:
        """How the file was when it was looked at."""
        return Stamp(self.size, self.mtime_ns, self.ctime_ns)


class Database:
    """An open SQLite file. For one thread."""

    def __init__(self, path: Path, timeout: float) -> None:
        """Open or create the file; where this user may not write, for reading.

        Args:
            path: the file.
            timeout: seconds to wait for another process that writes.

        Raises:
            SearchIndexError: locked for longer, damaged, of another program, or of another format.
        """
        self.path = path
        self._timeout = timeout
        with self._explained():
            self._connection = connected(path, timeout)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction: all that is written in the block, or nothing."""
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def meta(self, key: str) -> str | bytes | None:
        """Return a value of the meta table.

        Raises:
            SearchIndexError: it is neither text nor bytes.
        """
        found = self._one("SELECT value FROM meta WHERE key = ?", key)
        if found and not isinstance(found[0], str | bytes):
            raise self.damaged(f"its {key} is of another type")
        return found[0] if found else None

    def set_meta(self, key: str, value: str | bytes) -> None:
        """Write a value of the meta table; inside `writing`."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def put(self, rows: Iterable[Row]) -> None:
        """Insert or replace rows; inside `writing`."""
        cells = ((os.fsencode(row.path), *row[1:6], _printable(row.error)) for row in rows)
        self._connection.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?)", cells)

    def remove(self, paths: Iterable[str]) -> None:
        """Delete rows; inside `writing`."""
        self._connection.executemany("DELETE FROM images WHERE path = ?", ((os.fsencode(path),) for path in paths))

    def forget(self, *keys: str) -> None:
        """Delete values of the meta table; inside `writing`."""
        self._connection.executemany("DELETE FROM meta WHERE key = ?", ((key,) for key in keys))

    def files(self) -> Iterator[Row]:
        """All rows, by path, without their embeddings."""
        return self._rows(f"{_FILES} ORDER BY path")

    def failures(self) -> Iterator[Row]:
        """Return the rows that have an error, by path."""
        return self._rows(f"{_FILES} WHERE error IS NOT NULL ORDER BY path")

    def copies(self) -> Iterator[Row]:
        """Return the rows with an embedding whose content more than one of them has, by content and path."""
        return self._rows(f"{_FILES} WHERE embedding IS NOT NULL AND digest IN ({_COPIED}) ORDER BY digest, path")

    def file(self, path: str) -> Row | None:
        """Return the row of a path, without its embedding."""
        found = self._rows(f"{_FILES} WHERE path = ?", os.fsencode(path))
        return next(found, None)

    def embedding_of(self, digest: bytes) -> bytes | None:
        """Return the embedding of a content that some file has, or had when it was last looked at."""
        found = self._one("SELECT embedding FROM images WHERE digest = ? AND embedding IS NOT NULL LIMIT 1", digest)
        return found[0] if found and isinstance(found[0], bytes) else None

    def count(self) -> int:
        """Return the number of files with an embedding."""
        found = self._one("SELECT count(*) FROM images WHERE embedding IS NOT NULL")
        assert found is not None
        return int(found[0])

    def embeddings(self) -> Iterator[tuple[bytes, bytes]]:
        """Path (as bytes) and embedding of each file that has one, by path."""
        rows = "SELECT path, embedding FROM images WHERE embedding IS NOT NULL ORDER BY path"
        with self._explained():
            for path, embedding in self._connection.execute(rows):
                if not isinstance(embedding, bytes):
                    raise self.damaged("an embedding is of another type")
                yield self._checked_path(path), embedding

    def check(self) -> None:
        """Read all pages and see that they hang together.

        Raises:
            SearchIndexError: they do not.
        """
        found = self._one("PRAGMA quick_check(1)")
        if found != ("ok",):
            raise self.damaged(str(found[0] if found else "no answer"))

    def _one(self, statement: str, *values: str | bytes) -> tuple[str | bytes, ...] | None:
        with self._explained():
            found: tuple[str | bytes, ...] | None = self._connection.execute(statement, values).fetchone()
            return found

    def _rows(self, statement: str, *values: bytes) -> Iterator[Row]:
        with self._explained():
            for path, *cells in self._connection.execute(statement, values):
                if not all(isinstance(cell, kind) for cell, kind in zip((path, *cells), _CELLS, strict=True)):
                    raise self.damaged("a cell is of another type")
                yield Row(os.fsdecode(self._checked_path(path)), *cells)

    def _checked_path(self, path: Any) -> bytes:
        if not isinstance(path, bytes) or not path or b"\0" in path:
            raise self.damaged("a path is none")
        return path

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # extended codes have the primary one in the low byte
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise SearchIndexError(
                    f"{self.path}: another process is writing it, and was not done within {self._timeout:g} seconds. "
                    "Wait for it and try again."
                ) from error
            if code == sqlite3.SQLITE_READONLY:
                raise SearchIndexError(
                    f"{self.path}: has to be brought up to date, and you may not write it. Ask its owner to run: "
                    "clip-search index"
                ) from error
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise self.damaged(str(error)) from error
            raise SearchIndexError(f"{self.path}: cannot be used ({error})") from error

    def damaged(self, what: str) -> SearchIndexError:
        """Make the error to raise where the content makes no sense."""
        return SearchIndexError(
            f"{self.path}: the database is damaged ({what}). It cannot be repaired: remove the folder "
            f"{self.path.parent} and index again."
        )


def _printable(text: str | None) -> str | None:
    """SQLite's text is UTF-8: bytes of a file name that are not appear as escapes."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()
