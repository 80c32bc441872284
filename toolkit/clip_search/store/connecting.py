"""Open or make the SQLite file of an index, by whoever may write it or only read it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from clip_toolkit.errors import SearchIndexError

_APPLICATION_ID = 0x434C4950  # "CLIP"; https://www.sqlite.org/pragma.html#pragma_application_id
_PRIMARY = 0xFF  # of an extended result code; https://www.sqlite.org/rescode.html
_VERSION = 2
"""1, which was never released, knows no ``ctime_ns``."""

_SCHEMA = (
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    """CREATE TABLE images (
        path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
        digest BLOB, embedding BLOB, error TEXT
    )""",
    "CREATE INDEX images_by_digest ON images (digest)",
)


def files_of_database(path: Path) -> list[Path]:
    """Return the file and those that SQLite may keep beside it (https://www.sqlite.org/tempfiles.html)."""
    return [path.with_name(f"{path.name}{suffix}") for suffix in ("", "-wal", "-shm", "-journal")]


def connected(path: Path, timeout: float) -> sqlite3.Connection:
    """Connect to the file, made if it is not there; where this user may not write or the disk is full, for reading.

    Args:
        path: the file, absolute.
        timeout: seconds to wait for another process that writes.

    Raises:
        SearchIndexError: of another program or another format.
        sqlite3.Error: damaged, locked, or not to be opened.
    """
    if not _is_writable(path):
        return _prepared(_opened_to_read(path, timeout), path, to_write=False)
    try:
        return _prepared(sqlite3.connect(path, timeout=timeout, isolation_level=None), path, to_write=True)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & _PRIMARY not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL) or _has_log(path):
            raise
    return _prepared(_opened_to_read(path, timeout), path, to_write=False)  # a full disk has no room beside the file


def _prepared(connection: sqlite3.Connection, path: Path, *, to_write: bool) -> sqlite3.Connection:
    try:
        _prepare(connection, path, to_write=to_write)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, *, to_write: bool) -> None:
    application, version, tables = (
        connection.execute(statement).fetchone()[0]
        for statement in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if tables and application != _APPLICATION_ID:
        raise SearchIndexError(f"{path}: is a database of another program. Name another --index.")
    if tables and version != _VERSION:
        remedy = "Upgrade it." if version > _VERSION else f"Remove the folder {path.parent} and index again."
        raise SearchIndexError(f"{path}: has format {version}, this version of clip-toolkit reads {_VERSION}. {remedy}")
    if not to_write:
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    if not tables:
        _create(connection)


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    with closing(connection.execute("SELECT count(*) FROM sqlite_master")) as rows:
        is_ours_to_make = rows.fetchone() == (0,)  # or another process was faster
    for statement in _SCHEMA if is_ours_to_make else ():
        connection.execute(statement)
    connection.execute("COMMIT")


def _is_writable(path: Path) -> bool:
    """Whether this user may write a database: the file, if there is one, and in its folder."""
    return os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))


def _has_log(path: Path) -> bool:
    """Whether changes lie beside the file that are not in it yet."""
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _opened_to_read(path: Path, timeout: float) -> sqlite3.Connection:
    """Connect to a database that cannot be written.

    There SQLite reads a WAL database only where another process keeps the files beside it, or where it is told that
    nobody changes it (https://www.sqlite.org/wal.html#read_only_databases).
    """
    address = f"{path.as_uri()}?mode=ro{'' if _has_log(path) else '&immutable=1'}"  # https://www.sqlite.org/uri.html
    return sqlite3.connect(address, timeout=timeout, isolation_level=None, uri=True)
