"""Records on their way to an output file: ``OUTPUT.part``, which survives a kill and can be gone on with.

It is a journal of one record an image (`clip_toolkit.stream.journal`); since a resumed run sees the very batches of an
uninterrupted one, it gives the very same numbers. When all images are done the records are written to the output in
its own format, and once that is safe from a power cut the part file goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from clip_toolkit.errors import OutputError
from clip_toolkit.files.atomic import check_writable
from clip_toolkit.stream.inputs import Input
from clip_toolkit.stream.journal import Journal


class PartFile(Journal):
    """The part file of an output, open for writing."""

    def __init__(self, output: Path, settings: dict[str, Any], batch_size: int, resume: bool) -> None:
        """Open or continue a part file.

        Raises:
            OutputError: it is there and ``resume`` is not asked for; or as `Journal`.
        """
        check_writable(output)
        path = output.with_name(f"{output.name}.part")
        if path.exists() and not resume:
            raise OutputError(
                f"{path}: is left from an interrupted run. Continue it with --resume, or remove it to start over."
            )
        super().__init__(path, settings, {"image", "error"}, batch_size)

    @property
    def failed(self) -> int:
        """Number of the records in it that have an error."""
        return sum(record["error"] is not None for record in self.records())

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

    def remove(self) -> None:
        """Delete the file: its records have reached the output."""
        self.path.unlink()


def _named(item: Input | None) -> str:
    if item is None:
        return "None"
    time = "" if item.time is None else f" at {item.time:.2f} s"
    return f"{item.name!r}{time}" if item.text is None else f"{item.name!r}{time} with the text {item.text!r}"
