"""Corrected answers: a manifest as ``clip-train`` reads it, and the images beside it."""

from __future__ import annotations

import csv
import hashlib
import math
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from clip_toolkit.errors import ClipToolkitError, DatasetError, OutputError
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.files.csv_table import read_rows
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION

_SEPARATOR = ";"  # of several labels in a cell, as in the manifests of clip-train
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


class Corrections:
    """A folder with ``manifest.csv`` and the images that it names, each under the SHA-256 of its content.

    Attributes:
        manifest: path of the CSV file.
        columns: its columns beside ``path``: ``label``, or of a regression the names of the values.
    """

    def __init__(self, folder: Path, spec: ModelSpec) -> None:
        """Name the folder, which the first correction makes."""
        self.manifest = folder / "manifest.csv"
        self.columns = spec.labels if spec.task == REGRESSION else ("label",)
        self._spec = spec
        self._lock = threading.Lock()

    def rows(self) -> list[dict[str, str]]:
        """Return the rows of the manifest, oldest first.

        Raises:
            DatasetError: it cannot be read, or is of another task.
        """
        if not self.manifest.exists():
            return []
        return [row.cells for row in read_rows(self.manifest, ("path", *self.columns), DatasetError)]

    def add(self, image: Path, answer: Sequence[str | float | None]) -> int:
        """Keep an image with its right answer, in place of an earlier one for the same content.

        Args:
            image: the file, which is copied byte for byte.
            answer: the label; of a multi-label model all that apply, perhaps none; of a regression every value.

        Returns:
            The number of corrected images.

        Raises:
            ClipToolkitError: the answer is none that the model could give.
            DatasetError: as in `rows`.
            OutputError: the folder cannot be written.
        """
        cells = dict(zip(self.columns, self._cells(answer), strict=True))
        content = image.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        suffix = image.suffix.lower()
        with self._lock:
            rows = self.rows()
            row = next((row for row in rows if Path(row["path"]).stem == digest), None)
            if row is None:
                row = {"path": digest + suffix if _SUFFIX.fullmatch(suffix) else digest}
                self._keep(self.manifest.with_name(row["path"]), content)
                rows.append(row)
            row.update(cells)
            self._write(rows)
        return len(rows)

    def _cells(self, answer: Sequence[str | float | None]) -> list[str]:
        if self._spec.task == REGRESSION:
            return [_number(value, name) for value, name in zip(answer, self.columns, strict=True)]
        unknown = [label for label in answer if label not in self._spec.labels]
        if unknown or (len(answer) != 1 and self._spec.task != MULTI_LABEL):
            raise ClipToolkitError(f"correction: choose among {', '.join(self._spec.labels)}")
        unfit = [label for label in map(str, answer) if _SEPARATOR in label or label != label.strip()]
        if unfit:
            raise ClipToolkitError(f"correction: the label {unfit[0]!r} cannot stand in a manifest of clip-train")
        return [_SEPARATOR.join(map(str, answer))]

    def _keep(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{path.parent}: cannot be made ({error.strerror}). Name another folder with --corrections."
            ) from error
        with written_atomically(path) as temporary:
            temporary.write_bytes(content)

    def _write(self, rows: Sequence[dict[str, str]]) -> None:
        with written_atomically(self.manifest) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*dict.fromkeys(key for row in rows for key in row)], restval="")
            writer.writeheader()
            writer.writerows(rows)


def _number(value: str | float | None, name: str) -> str:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ClipToolkitError(f"correction: expected a number for {name}, got {value!r}")
    return repr(float(value))
