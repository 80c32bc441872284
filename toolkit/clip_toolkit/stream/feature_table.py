"""Features of labelled images as Parquet: what ``clip-scale features`` writes, and ``clip-train`` reads.

Each file says in its metadata which encoder its features are of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.spec.classifier import EncoderSpec, Preprocessing
from clip_toolkit.spec.json_codec import from_json, to_json
from clip_toolkit.stream.writers import import_pyarrow

_KEY = b"clip_toolkit.features"
FEATURE = "feature"
_SUFFIX = ".parquet"


def holds_features(path: Path) -> bool:
    """Tell features from images by the name of the file or folder, or by what lies in the folder."""
    return path.suffix.lower() == _SUFFIX or any(path.glob(f"*{_SUFFIX}"))


class FeatureRow(NamedTuple):
    """An image; the names are those of the columns.

    Attributes:
        path: as it was named.
        label: as a manifest has it; several are apart by semicolons.
        split: ``train``, ``val``, ``test`` or empty.
        group: of images that belong together, or empty.
        sha256: of the image file, in hexadecimal.
        error: what is wrong with it, or None.
    """

    path: str
    label: str
    split: str
    group: str
    sha256: str
    error: str | None


@dataclass(frozen=True)
class FeatureSource:
    """What features are made by: those of two files may stand together if theirs are equal.

    Attributes:
        encoder: and which of its features.
        preprocessing: from image to its input.
    """

    encoder: EncoderSpec
    preprocessing: Preprocessing

    @classmethod
    def of(cls, metadata: dict[bytes, bytes] | None) -> FeatureSource | None:
        """Read it from the metadata of a Parquet schema; None where there is none.

        Raises:
            SpecError: it is damaged.
        """
        told = (metadata or {}).get(_KEY)
        return None if told is None else from_json(cls, json.loads(told), "features")


def write_features(
    rows: Sequence[FeatureRow], features: Sequence[NDArray[np.float32] | None], source: FeatureSource, file: IO[bytes]
) -> None:
    """Write rows and their features, float32 ``[dim]``, or None beside an error.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    arrow = import_pyarrow()
    names = FeatureRow._fields
    columns: list[Any] = [arrow.array([row[index] for row in rows], arrow.string()) for index in range(len(names))]
    columns.append(_feature_column(arrow, features, source.encoder.dim))
    table = arrow.Table.from_arrays(columns, names=[*names, FEATURE])
    table = table.replace_schema_metadata({_KEY: json.dumps(to_json(source))})
    arrow.parquet.write_table(table, file, use_dictionary=["label", "split", "group"])


def _feature_column(arrow: Any, features: Sequence[NDArray[np.float32] | None], dim: int) -> Any:
    values = np.zeros((len(features), dim), np.float32)
    for index, feature in enumerate(features):
        if feature is not None:
            values[index] = feature
    missing = arrow.array([feature is None for feature in features], arrow.bool_())
    return arrow.FixedSizeListArray.from_arrays(arrow.array(values.ravel()), dim, mask=missing)
