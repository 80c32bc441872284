"""The folder that a run writes: part files in the order of the source, and a ledger of those that are finished.

One process writes it, the one that began the run: workers hand their files back. A part counts when its file is safe
from a power cut and its line is in the ledger; a file without a line is written again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from clip_scale.part_worker import Done, Task
from clip_scale.sources.parts import Part
from clip_scale.summary import Summary
from clip_toolkit.errors import OutputError
from clip_toolkit.files.atomic import remove_leftovers, written_atomically
from clip_toolkit.images.sources import is_url
from clip_toolkit.stream.journal import Journal

LEDGER, SUMMARY = "_ledger", "_summary.json"
"""Files beside the parts. Readers of a folder of Parquet files pass over names that begin so."""


class Sink(Journal):
    """A folder of part files, open for writing; the journal is its ledger.

    Attributes:
        folder: its path.
        summary: of the parts that are finished.
    """

    def __init__(self, folder: Path, form: str, settings: dict[str, Any], *, resume: bool) -> None:
        """Make the folder, or open that of an earlier run.

        Raises:
            OutputError: it cannot be written; it holds something else, or a run and ``resume`` is not asked for; or as
                `Journal`.
        """
        self.folder, self.summary = folder, Summary()
        self._form = form
        self._finished: set[int] = set()
        self._under_way: dict[int, str] = {}
        _prepare(folder, resume=resume)
        super().__init__(folder / LEDGER, settings, {"part", "inputs", "bytes", "summary"})

    def resume(self, parts: Iterable[Part]) -> None:
        """Find out what an earlier run has finished; parts whose files are gone are not.

        Raises:
            OutputError: ``parts`` are not those of that run, or its ledger is damaged.
        """
        lines = {line["part"]: line for line in self.records()}
        numbered = enumerate(parts) if lines else ()
        count = 0
        for number, part in numbered:
            count = number + 1
            line = lines.get(number)
            if line is None:
                continue
            if line["inputs"] != _digest(part):
                raise self._changed(f"part {number} has other images")
            path = self._path(number)
            if path.is_file() and path.stat().st_size == line["bytes"]:
                self._finished.add(number)
                self.summary.add(Summary.from_json(line["summary"]))
        if count <= max(lines, default=-1):
            raise self._changed(f"it has {count} parts, and the ledger one of the number {max(lines)}")

    def remaining(self, parts: Iterable[Part]) -> Iterator[Task]:
        """Yield the parts that are not finished, lazily."""
        for number, part in enumerate(parts):
            if number not in self._finished:
                self._under_way[number] = _digest(part)
                yield number, part

    def put(self, done: Done) -> None:
        """Write a part's file, and then its line.

        Raises:
            OutputError: the folder cannot be written.
        """
        with written_atomically(self._path(done.number)) as temporary:
            temporary.write_bytes(done.content)
        inputs, counts = self._under_way.pop(done.number), done.summary.to_json()
        self.append([{"part": done.number, "inputs": inputs, "bytes": len(done.content), "summary": counts}])
        self.summary.add(done.summary)

    def finish(self) -> None:
        """Write the summary, by whose presence a finished run is told."""
        with written_atomically(self.folder / SUMMARY) as temporary:
            temporary.write_text(json.dumps(self.summary.to_json(), indent=2) + "\n", encoding="utf-8")

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:08}.{self._form}"

    def _changed(self, how: str) -> OutputError:
        return OutputError(f"{self.path}: the source has changed since: {how}. Name another folder to start over.")


def _prepare(folder: Path, *, resume: bool) -> None:
    if is_url(str(folder).replace(":/", "://", 1)):  # as a path, a URL has one slash
        raise OutputError(f"{folder}: is a URL. Name a folder of this machine, and copy it when the run is finished.")
    if (folder / LEDGER).exists():
        if not resume:
            raise OutputError(f"{folder}: holds a run already. Continue it with --resume, or name another folder.")
        remove_leftovers(folder)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise OutputError(f"{folder}: is not empty, and holds no run of clip-scale. Name another folder.")
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{folder}: is no folder. Name another.") from error
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{folder}: cannot be written ({error.strerror})") from error


def _digest(part: Part) -> str:
    return hashlib.sha256(json.dumps(part.identity()).encode()).hexdigest()
