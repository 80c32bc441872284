"""What a worker does for a head to learn from: read a part, and hand back its features with their labels."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import IO

from clip_scale.part_worker import PartWorker
from clip_scale.sources.labelled import Labelled, LabelledPart
from clip_scale.sources.parts import Part
from clip_scale.summary import Summary
from clip_toolkit.errors import ImageError, ModelError
from clip_toolkit.images.sources import NamedBytes
from clip_toolkit.spec.classifier import NO_HEAD, ModelSpec
from clip_toolkit.stream.feature_table import FeatureRow, FeatureSource, write_features
from clip_toolkit.stream.inputs import Input


def check_encoder(spec: ModelSpec, model: str) -> None:
    """Refuse a classifier, whose file gives its feature only divided by the norm.

    Raises:
        ModelError: it is one.
    """
    if spec.head.source != NO_HEAD:
        raise ModelError(
            f"{model}: is a classifier, and features come from an encoder alone. Make its file with clip-export "
            f"--encoder-only --encoder {spec.encoder.id}"
        )


class FeatureWorker(PartWorker):
    """Writes the features of parts, by the file of an encoder alone."""

    def write(self, part: Part, file: IO[bytes]) -> Summary:
        """Write the rows of a part and their features, and count them."""
        assert isinstance(part, LabelledPart), "of a labelled source"
        spec, provider = self.classifier.spec, self.classifier.opened().provider
        found = self.classifier.predictions(map(_read, part.inputs()))
        rows, features = [], []
        for (item, result), labelled in zip(found, part.rows, strict=True):
            error = result if isinstance(result, ImageError) else None
            rows.append(_row(item, labelled, error))
            features.append(None if isinstance(result, ImageError) else result.logits)
        write_features(rows, features, FeatureSource(spec.encoder, spec.preprocessing), file)
        return Summary.of(row._asdict() | {"provider": provider} for row in rows)


def _read(item: Input) -> Input:
    """Read an image's file, whose hash tells copies; one that cannot be read is an error where it is decoded."""
    if item.image is None:
        with suppress(OSError):
            return item._replace(image=NamedBytes(Path(item.name).read_bytes(), item.name))
    return item


def _row(item: Input, labelled: Labelled, error: ImageError | None) -> FeatureRow:
    content = item.image.getvalue() if isinstance(item.image, NamedBytes) else b""
    sha256 = hashlib.sha256(content).hexdigest()
    return FeatureRow(item.name, *labelled, sha256, None if error is None else str(error))
