"""What a worker does: read a part, classify it, and hand back the bytes of its file."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import IO, TypeAlias

from clip_scale.batch_classifier import BatchClassifier
from clip_scale.sources.parts import Part
from clip_scale.summary import Summary
from clip_toolkit.listing import Style
from clip_toolkit.stream.writers import encode

Task: TypeAlias = tuple[int, Part]
"""A part, and its number in the source."""


@dataclass(frozen=True)
class Done:
    """A part that is classified.

    Attributes:
        number: of the part.
        content: its file.
        summary: of its records.
    """

    number: int
    content: bytes
    summary: Summary


@dataclass(frozen=True)
class PartWorker:
    """Classifies parts, in whatever process it is unpickled.

    Attributes:
        classifier: which model, and how.
        form: of the files: ``parquet`` or ``jsonl``.
    """

    classifier: BatchClassifier
    form: str

    def __call__(self, task: Task) -> Done:
        """Classify a part.

        Raises:
            ClipToolkitError: no part can be classified here, such as for a model that cannot be opened.
        """
        number, part = task
        warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image is said in its record
        file = io.BytesIO()
        summary = self.write(part, file)
        return Done(number, file.getvalue(), summary)

    def write(self, part: Part, file: IO[bytes]) -> Summary:
        """Write the file of a part, and count what is in it."""
        records = list(self.classifier.records(part.inputs()))
        encode(records, Style(self.form), file, self.classifier.spec, embedding=self.classifier.embedding_type)
        return Summary.of(records)
