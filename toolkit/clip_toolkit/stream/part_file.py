"""Records on their way to an output file: ``OUTPUT.part``, which survives a kill and can be gone on with.

Lines of a checksum and JSON: first the settings of the run, then one record an image, written batch by batch. A batch
that was cut in two or altered is dropped with all that follow and done again, so that a resumed run sees the very
batches of an uninterrupted one, and gives the very same numbers. When all images are done the records are written to
the output in its own format, and once that is safe from a power cut the part file goes.
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
from clip_toolkit.files.atomic import check_writable
from clip_toolkit.stream.inputs import Input
from clip_toolkit.stream.records import Record

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


_SECONDS_BETWEEN_FLUSHES = 1.0
"""What a power cut loses at most; a flush after every batch would slow small models down."""


class PartFile:
    """The part file of an output, open for writing.

    Attributes:
        path: its path.
        done: number of records that an earlier run left in it.
        failed: number of those with an error.
    """

    def __init__(self, output: Path, settings: dict[str, Any], batch_size: int, resume: bool) -> None:
        """Open or continue a part file.

        Raises:
            OutputError: it cannot be written; it is there and ``resume`` is not asked for; another process writes it;
                or it comes from a run with other settings.
        """
        check_writable(output)
        self.path = output.with_name(f"{output.name}.part")
        if self.path.exists() and not resume:
            raise OutputError(
                f"{self.path}: is left from an interrupted run. Continue it with --resume, or remove it to start over."
            )
        self.done, self.failed = 0, 0
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

    def remaining(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """Return the inputs that are not done yet.

        Raises:
            OutputError: those that are done are not the first of these.
        """
        inputs = iter(inputs)
        for index, record in enumerate(self.records()):
            done = Input(record["image"], record.get("text"), record.get("time"))
            now = next(inputs, None)
            if now is None or now.identity != done.identity:
                raise OutputError(
                    f"{self.path}: the inputs have changed since: image {index + 1} was {_named(done)}, "
                    f"now it is {_named(now)}. Remove the file to start over."
                )
        return inputs

    def append(self, records: Iterable[Record]) -> None:
        """Write a batch of records."""
        self._file.write(b"".join(line(item) for item in records))
        self._file.flush()
        if time.monotonic() - self._flushed >= _SECONDS_BETWEEN_FLUSHES:
            os.fsync(self._file.fileno())
            self._flushed = time.monotonic()

    def records(self) -> Iterator[Record]:
        """All records, in order.

        Raises:
            OutputError: one of them was altered since it was written.
        """
        with self.path.open("rb") as lines:
            next(lines, None)
            for number, written in enumerate(lines, 1):
                record = _content(written)
                if record is None or not {"image", "error"} <= record.keys():
                    raise OutputError(f"{self.path}: record {number} is damaged. Remove the file to start over.")
                yield record

    def remove(self) -> None:
        """Delete the file: its records have reached the output."""
        self.path.unlink()

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
        self.failed = sum(record["error"] is not None for record in self.records())

    def _check(self, header: bytes, settings: dict[str, Any]) -> None:
        before = _content(header)
        if before is None or before.keys() != settings.keys():
            raise OutputError(f"{self.path}: is no part file of this version. Remove it, or name another output.")
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
    """Return one line of a part file: the CRC-32 of JSON, a blank, the JSON."""
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


def _named(item: Input | None) -> str:
    if item is None:
        return "None"
    time = "" if item.time is None else f" at {item.time:.2f} s"
    return f"{item.name!r}{time}" if item.text is None else f"{item.name!r}{time} with the text {item.text!r}"


def _explained(error: OSError, path: Path) -> OutputError:
    if isinstance(error, OutputError):
        return error
    return OutputError(f"{path}: cannot be written ({error.strerror})")


_ENCODING = ("utf-8", "surrogateescape")  # file names may be any bytes
