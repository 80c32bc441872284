"""An encoder in a search, and the images as it sees them: read once, encoded once for all depths."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_export.data.splits import Split, duplicate_notes, split_dataset
from clip_export.encoders.feature_names import POOLED
from clip_export.encoders.image import Encoder
from clip_export.features.cache import FeatureCache
from clip_export.features.images import Features, ReadFiles, image_features, read_images
from clip_export.training.epochs import Examples
from clip_export.training.preparation import Bar, Prepared
from clip_export.tuning.candidates import features_of, reading
from clip_export.tuning.options import TuningData
from clip_toolkit.data.dataset import Dataset
from clip_toolkit.errors import DatasetError, EncoderError, ImageError

_BATCH = 32  # images that are read ahead


@dataclass(frozen=True)
class Subject:
    """An encoder and what it makes of the readable images.

    Attributes:
        encoder: with its pooled feature.
        dataset: the readable images.
        split: to learn from, to calibrate by, and held out.
        pooled: float32 ``[n, width]``.
        depths: float32 ``[n, blocks, poolings, width]``.
        reading: how the files were read.
        notes: what the user should know, one line each.
    """

    encoder: Encoder
    dataset: Dataset
    split: Split
    pooled: Tensor
    depths: Tensor
    reading: ReadFiles
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The encoder's name, as its file will say it, and its input size if that is not its own."""
        size = self.encoder.input_size
        return self.encoder.spec().id + ("" if size is None else f" at {size}")

    @property
    def learnt(self) -> list[int]:
        """Images that the search may look at."""
        return sorted((*self.split.train, *self.split.validation))

    def feature(self, name: str) -> Tensor:
        """Return a feature of all images, ``[n, dim]``."""
        return self.pooled if name == POOLED else reading(self.encoder, name).feature_of(self.depths)

    def examples(self, features: Tensor, rows: Sequence[int]) -> Examples:
        """Return features and targets of some images."""
        return Examples(features[list(rows)], torch.from_numpy(self.dataset.targets[list(rows)]))

    def prepared(self, learnt: Tensor, judged: Tensor) -> Prepared:
        """Return the sides of the split: ``learnt`` is read of the training side, ``judged`` of the others."""
        train, validation, test = self.split
        return Prepared(
            self.dataset,
            self.split,
            self.examples(learnt, train),
            self.examples(judged, validation),
            self.examples(judged, test),
            self.reading,
            self.notes,
        )

    @functools.cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """The images as the network takes them: uint8 ``[n, size, size, 3]``, on disk as long as this process runs."""
        size = self.encoder.preprocessing.size
        with tempfile.TemporaryFile() as file:
            shape = (len(self.dataset.files), size, size, 3)
            pixels = np.memmap(file, np.uint8, "w+", shape=shape)
        for row, item in enumerate(read_images(self.encoder.preprocessing, self.dataset.files, 0, None, _BATCH)):
            if isinstance(item.found, ImageError):
                raise item.found  # it could be read a moment ago
            pixels[row] = item.found
        return pixels

    def digest(self) -> str:
        """Hash what decides the results of a search: images, labels, split and encoder."""
        told = (self.reading.contents, self.dataset.labels, self.dataset.groups, self.split)
        digest = hashlib.sha256(f"{told} {self.encoder.revision} {self.name}".encode())
        digest.update(np.ascontiguousarray(self.dataset.targets).data)
        return digest.hexdigest()


def read_encoders(encoders: Sequence[str], sizes: Sequence[int]) -> Iterator[Encoder]:
    """Load every encoder at its own input size, and at those of ``sizes`` that are other ones.

    Raises:
        EncoderError: one cannot be loaded or take the size, or its graph is a trace, which cannot be cut.
    """
    for name in encoders:
        own = Encoder.from_pretrained(name)
        if own.family.image.traced:
            raise EncoderError(f"{name}: {own.family.name} encoders have no depths to choose from. Use clip-train.")
        yield own
        for size in dict.fromkeys(sizes):
            if size != own.preprocessing.size:
                yield Encoder.from_pretrained(name, input_size=size)


def read_subject(dataset: Dataset, used: Encoder, asked: TuningData, cache: Path | None, bar: Bar) -> Subject:
    """Encode a data set with an encoder, once for the pooled feature and once for those of all depths, and split it.

    Raises:
        DatasetError: no file can be read, or the data set cannot be split.
    """
    pooled, depths = (
        _encoded(used if name == POOLED else reading(used, name), dataset, asked, cache, bar)
        for name in (POOLED, next(name for name in features_of(used) if name != POOLED))
    )
    if not pooled.kept:
        raise DatasetError(f"{dataset.source}: none of {len(dataset.files)} files can be read as an image.")
    readable = dataset.subset(pooled.kept)
    share = (1 - asked.test_fraction) / 5  # to calibrate by
    split = split_dataset(readable, pooled.contents, share, asked.test_fraction, asked.seed)
    if not split.test:
        raise DatasetError("split: no images are held out. Name some as test images, or give a --test-fraction.")
    notes = (*dataset.left_out, *duplicate_notes(readable, split, pooled.contents))
    return Subject(used, readable, split, pooled.values, depths.values, pooled.reading, notes)


def _encoded(encoder: Encoder, dataset: Dataset, asked: TuningData, cache: Path | None, bar: Bar) -> Features:
    title = f"features of {encoder.spec().id}" + ("" if encoder.tokens is None else ", all depths")
    with bar(title, len(dataset.files)) as advance:
        return image_features(
            encoder,
            dataset.files,
            asked.batch_size,
            progress=advance,
            cache=None if cache is None else FeatureCache(cache, encoder),
            all_depths=True,
        )
