"""Records that survive a kill: lines of a checksum and JSON, written batch by batch, of which a resumed run goes on.

First come the settings of the run, then the records. A batch that was cut in two or altered is dropped with all that
follow, so that a resumed run sees the very batches of an uninterrupted one.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from clip_toolkit.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


_SECONDS_BETWEEN_FLUSHES = 1.0
"""What a power cut loses at most; a flush after every batch would slow small models down."""

_ENCODING = ("utf-8", "surrogateescape")  # file names may be any bytes


class Journal:
    """A journal, open for writing by this process alone.

    Attributes:
        path: its path.
        done: number of records that an earlier run left in it.
    """

    def __init__(self, path: Path, settings: dict[str, Any], keys: set[str], batch_size: int = 1) -> None:
        """Open or continue a journal.

        Args:
            path: its file.
            settings: of the run, which an earlier one must have had, too.
            keys: what every record has.
            batch_size: records that are kept or dropped together.

        Raises:
            OutputError: it cannot be written, another process writes it, or it comes from a run with other settings.
        """
        self.path, self.done = path, 0
        self._keys = keys
        self._flushed = time.monotonic()
        try:
            self._file = self.path.open("a+b")
            try:
                self._lock()
                self._continue(settings, batch_size)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise _explained(error, self.path) from error

    def __enter__(self) -> Self:
        """Nothing more than the opening did."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file and leave it where it is."""
        self._file.close()

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        """Write a batch of records."""
        self._file.write(b"".join(line(item) for item in records))
        self._file.flush()
        if time.monotonic() - self._flushed >= _SECONDS_BETWEEN_FLUSHES:
            os.fsync(self._file.fileno())
            self._flushed = time.monotonic()

    def records(self) -> Iterator[dict[str, Any]]:
        """All records, in order.

        Raises:
            OutputError: one of them was altered since it was written.
        """
        with self.path.open("rb") as lines:
            next(lines, None)
            for number, written in enumerate(lines, 1):
                record = _content(written)
                if record is None or not self._keys <= record.keys():
                    raise OutputError(f"{self.path}: record {number} is damaged. Remove the file to start over.")
                yield record

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(f"{self.path}: another process is writing it. Wait for it, or name another.") from error

    def _continue(self, settings: dict[str, Any], batch_size: int) -> None:
        self._file.seek(0)
        header = self._file.readline()
        if not header.endswith(b"\n"):
            self._file.truncate(0)
            self._file.write(line(settings))
            self._file.flush()
            return
        self._check(header, settings)
        self._file.truncate(self._end_of_whole_batches(batch_size))

    def _check(self, header: bytes, settings: dict[str, Any]) -> None:
        before = _content(header)
        if before is None or before.keys() != settings.keys():
            raise OutputError(f"{self.path}: was not written by this version. Remove it, or name another output.")
        for name, value in settings.items():
            if before[name] != value:
                raise OutputError(
                    f"{self.path}: comes from a run with another {name}: {before[name]!r}, now {value!r}. "
                    "Repeat that run's options, or remove the file to start over."
                )

    def _end_of_whole_batches(self, batch_size: int) -> int:
        end = self._file.tell()
        position = end
        for count, written in enumerate(self._file, 1):
            position += len(written)
            if _content(written) is None:
                break
            if count % batch_size == 0:
                end, self.done = position, count
        return end


def line(content: dict[str, Any]) -> bytes:
    """Return one line of a journal: the CRC-32 of JSON, a blank, the JSON."""
    text = json.dumps(content, ensure_ascii=False).encode(*_ENCODING)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _content(written: bytes) -> dict[str, Any] | None:
    """Return what `line` was made of; None where the line was cut short or altered."""
    checksum, _, text = written.partition(b" ")
    if not text.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
        return None
    try:
        content = json.loads(text.decode(*_ENCODING))
    except (ValueError, RecursionError):  # a checksum that is right by design
        return None
    return content if isinstance(content, dict) else None


def _explained(error: OSError, path: Path) -> OutputError:
    if isinstance(error, OutputError):
        return error
    return OutputError(f"{path}: cannot be written ({error.strerror})")
