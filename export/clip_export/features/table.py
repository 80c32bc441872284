"""Features that ``clip-scale features`` has written, for a head that is trained where the images are not."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip_toolkit.data.dataset import Dataset
from clip_toolkit.data.manifest import dataset_of
from clip_toolkit.errors import DatasetError, OutputError, SpecError, first_line
from clip_toolkit.files.csv_table import Row
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL
from clip_toolkit.stream.feature_table import FEATURE, FeatureRow, FeatureSource
from clip_toolkit.stream.parquet import parquet_batches, parquet_file
from clip_toolkit.stream.writers import import_pyarrow

_LEDGER, _SUMMARY = "_ledger", "_summary.json"  # of clip-scale: a run is whole when it has its summary


@dataclass(frozen=True)
class FeatureTable:
    """Rows of features, which stay on disk.

    Attributes:
        files: Parquet files, in order.
        source: what the features are made by.
        rows: of all files, without their features.
        kept: indices of the rows that have a feature.
        dataset: of those.
    """

    files: tuple[Path, ...]
    source: FeatureSource
    rows: list[FeatureRow]
    kept: list[int]
    dataset: Dataset

    @classmethod
    def read(cls, path: Path, task: str) -> FeatureTable:
        """Read a file, or a folder of part files.

        Raises:
            DatasetError: it cannot be read, is not finished or not of ``clip-scale features``, mixes encoders, or lacks
                a column or a label.
            MissingDependencyError: pyarrow is not installed.
        """
        if task == REGRESSION:
            raise DatasetError(f"{path}: has labels and no values for --task {task}. Train from the images.")
        files = _files(path)
        source = _common_source(files)
        rows = [FeatureRow(*row.values()) for file in files for row in _plain_rows(file)]
        kept = [index for index, row in enumerate(rows) if row.error is None]
        if not kept:
            raise DatasetError(f"{path}: none of {len(rows)} rows has a feature.")
        unlabelled = next((rows[index] for index in kept if not rows[index].label.strip()), None)
        if task == SINGLE_LABEL and unlabelled is not None:
            raise DatasetError(f"{path}: the label of {unlabelled.path} is missing. Add it, and write features anew.")
        cells = [Row(index + 1, rows[index]._asdict()) for index in kept]
        dataset = dataset_of(cells, path, task)
        images = tuple(Path(rows[index].path) for index in kept)
        return cls(files, source, rows, kept, replace(dataset, files=images, root=Path()))

    @property
    def contents(self) -> list[str]:
        """SHA-256 of each image that has a feature, in hexadecimal."""
        return [self.rows[index].sha256 for index in self.kept]

    def values(self, order: Sequence[int], folder: Path) -> Tensor:
        """Return features of the data set, float32 ``[len(order), dim]``, mapped from a file in a folder.

        The file has no name there, and is gone with this process.

        Raises:
            DatasetError: a feature is missing, of another type or not finite.
            OutputError: there is no room for them.
        """
        place = np.full(len(self.rows), -1, np.int64)
        place[np.array(self.kept)[list(order)]] = np.arange(len(order))
        found = _mapped(folder, len(order), self.source.encoder.dim)
        start = 0
        for file in self.files:
            for batch in _batches(file, [FEATURE]):
                rows = place[start : start + len(batch)]
                wanted = np.flatnonzero(rows >= 0)
                values = batch.column(0).take(import_pyarrow().array(wanted)).flatten().to_numpy(zero_copy_only=False)
                if values.size != wanted.size * found.shape[1]:
                    raise DatasetError(f"{file}: a row without an error has no feature. Write the features anew.")
                if not np.isfinite(values).all():
                    raise DatasetError(f"{file}: a feature is not finite. Write the features anew.")
                found[rows[wanted]] = values.reshape(-1, found.shape[1])
                start += len(batch)
        return torch.from_numpy(found)


def _files(path: Path) -> tuple[Path, ...]:
    if not path.exists():
        raise DatasetError(f"{path}: there is no such file or folder. Make it with clip-scale features.")
    if path.is_file():
        return (path,)
    if (path / _LEDGER).exists() and not (path / _SUMMARY).exists():
        raise DatasetError(f"{path}: is not finished. Continue it with clip-scale features --resume.")
    files = tuple(sorted(path.glob("*.parquet")))
    if not files:
        raise DatasetError(f"{path}: has no Parquet files. Make them with clip-scale features.")
    return files


def _common_source(files: Sequence[Path]) -> FeatureSource:
    first = _source(files[0])
    for file in files[1:]:
        other = _source(file)
        if other != first:
            names = " and ".join(f"{item.encoder.id}, {item.encoder.feature}" for item in (first, other))
            raise DatasetError(f"{file}: has features of another encoder than {files[0]} ({names}). Keep them apart.")
    return first


def _source(file: Path) -> FeatureSource:
    """Return what a file's features are made by, after a look at its columns."""
    with parquet_file(file, file, DatasetError) as parquet:
        schema = parquet.schema_arrow
    try:
        source = FeatureSource.of(schema.metadata)
    except (SpecError, ValueError) as error:
        raise DatasetError(f"{file}: its metadata is damaged ({first_line(error)}).") from error
    if source is None:
        raise DatasetError(f"{file}: does not name the encoder of its features. Write it with clip-scale features.")
    arrow = import_pyarrow()
    expected = {name: arrow.string() for name in FeatureRow._fields}
    expected[FEATURE] = arrow.list_(arrow.float32(), source.encoder.dim)
    for name, kind in expected.items():
        found = schema.field(name).type if name in schema.names else "none"
        if found != kind:
            raise DatasetError(f"{file}: expected a column '{name}' of the type {kind}, found {found}.")
    return source


def _plain_rows(file: Path) -> Iterator[dict[str, Any]]:
    for batch in _batches(file, FeatureRow._fields):
        yield from batch.select(FeatureRow._fields).to_pylist()


def _batches(file: Path, columns: Sequence[str]) -> Iterator[Any]:
    with parquet_file(file, file, DatasetError) as parquet:
        yield from parquet_batches(parquet, file, DatasetError, columns)


def _mapped(folder: Path, rows: int, dim: int) -> np.memmap[Any, np.dtype[np.float32]]:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk would end the process where the pages are written
                os.posix_fallocate(file.fileno(), 0, rows * dim * 4)
            return np.memmap(file, np.float32, "w+", shape=(rows, dim))
    except OSError as error:
        raise OutputError(
            f"{folder}: has no room for {rows} features of {dim} numbers, which lie there while the head is trained "
            f"({error.strerror}). Name another folder with --out."
        ) from error
