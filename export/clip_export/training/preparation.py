"""From a data set and an encoder to examples that a head can learn from: read, encode once, split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from clip_export.data.groups import with_groups
from clip_export.data.splits import Split, duplicate_notes, few_shots, split_dataset
from clip_export.encoders.image import Encoder
from clip_export.features.cache import FeatureCache
from clip_export.features.images import Features, ReadFiles, image_features
from clip_export.features.texts import TextFeatures, TextSide, encoded_texts, fused
from clip_export.heads.references import DataReference, content_digest
from clip_export.progress import Advance
from clip_export.training.epochs import Examples
from clip_export.training.options import DataOptions
from clip_toolkit.data.dataset import Dataset
from clip_toolkit.data.image_folder import read_image_folder
from clip_toolkit.data.manifest import read_manifest
from clip_toolkit.errors import DatasetError
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL


class Bar(Protocol):
    """Shows progress, as `clip_export.progress.bar` does."""

    def __call__(self, title: str, total: int) -> AbstractContextManager[Advance]:
        """Show a bar of ``total`` steps while the block runs."""


class Side(NamedTuple):
    """A side of the split.

    Attributes:
        name: ``train``, ``validation`` or ``test``.
        indices: of its files in the data set.
        examples: their features and targets, without augmented views.
    """

    name: str
    indices: list[int]
    examples: Examples


@dataclass(frozen=True)
class Prepared:
    """Everything a head is trained and judged on.

    Attributes:
        dataset: the readable files.
        split: who is learnt from; with `DataOptions.shots`, only those.
        train: with augmented views.
        validation: to choose by.
        test: to judge by; None if there is none.
        reading: how the files were read.
        texts: how the texts were read, of a data set that has some.
        notes: what the user should know, one line each.
        has_images: False where features came without them.
    """

    dataset: Dataset
    split: Split
    train: Examples
    validation: Examples
    test: Examples | None
    reading: ReadFiles
    notes: tuple[str, ...]
    texts: TextFeatures | None = None
    has_images: bool = True

    @property
    def sides(self) -> tuple[Side, ...]:
        """The training, the validation, and the test side if there is one."""
        count = len(self.split.train)
        learnt = Examples(self.train.features[:count], self.train.targets[:count])  # their views stand behind them
        names, parts = ("train", "validation", "test"), (learnt, self.validation, self.test)
        found = zip(names, self.split, parts, strict=True)
        return tuple(Side(name, indices, examples) for name, indices, examples in found if examples is not None)

    @property
    def held_out(self) -> Side:
        """What the head is judged by: the test side if there is one, else the validation side."""
        return self.sides[-1]

    def reference(self) -> DataReference | None:
        """Where the images are, for the head file; None where there are none."""
        if not self.has_images:
            return None
        held_out = (*self.split.validation, *self.split.test)
        digests = {content_digest(self.reading.contents[index]) for index in held_out}
        return DataReference(
            str(self.dataset.source.resolve()), text_column=self.dataset.text_column, digests=tuple(sorted(digests))
        )

    def counts(self) -> Iterator[tuple[str, str]]:
        """Each side and how many images of each label it has."""
        for name, indices, _ in self.sides:
            yield name, _counted(self.dataset, indices)


def read_dataset(path: Path, options: DataOptions) -> Dataset:
    """Read a folder, or a CSV manifest, with its groups.

    Raises:
        DatasetError: it does not hold what training needs.
    """
    if path.is_file():
        dataset = read_manifest(path, options.task, options.text_column)
    elif options.task == SINGLE_LABEL:
        dataset = read_image_folder(path, all_files=options.all_files)
    else:
        raise DatasetError(f"{path}: {options.task} needs targets that folders cannot name. Give a CSV file as DATA.")
    return with_groups(dataset, options.groups) if options.groups else dataset


def prepare(
    dataset: Dataset,
    encoder: Encoder,
    options: DataOptions,
    cache: FeatureCache | None,
    bar: Bar,
    *,
    text: TextSide | None = None,
) -> Prepared:
    """Run the encoder over a data set, and the text tower over its texts, and split it.

    Raises:
        DatasetError: no file can be read, or the data set cannot be split.
        DeviceError: the device has too little memory.
    """

    def encoded(files: Sequence[Path], view: int) -> Features:
        title = f"view {view} of {options.views}" if view else "features"
        with bar(title, len(files)) as advance:
            return image_features(
                encoder,
                files,
                options.batch_size,
                options.device,
                advance,
                backend=options.backend,
                cache=cache,
                view=view,
            )

    features = encoded(dataset.files, 0)
    if not features.kept:
        raise DatasetError(f"{dataset.source}: none of {len(dataset.files)} files can be read as an image.")
    readable = dataset.subset(features.kept)
    split = split_examples(readable, features.contents, options)
    texts = None if text is None else _encoded_texts(text, readable, options, bar)
    learnt = [readable.files[index] for index in split.train]
    views = [encoded(learnt, view) for view in range(1, options.views + 1)]
    if texts is not None:
        features = fused(features, texts.values)
        views = [fused(view, texts.values[split.train]) for view in views]
    return Prepared(
        dataset=readable,
        split=split,
        train=_with_views(examples(features, readable, split.train), [view.values for view in views]),
        validation=examples(features, readable, split.validation),
        test=examples(features, readable, split.test) if split.test else None,
        reading=features.reading,
        notes=(
            *dataset.left_out,
            *duplicate_notes(readable, split, features.contents),
            *(texts.notes if texts else ()),
            *(note for each in (cache, text and text.cache) if each for note in each.notes),
        ),
        texts=texts,
    )


def split_examples(dataset: Dataset, contents: Sequence[str], options: DataOptions) -> Split:
    """Split a data set of readable files, whose content's hashes are given.

    Raises:
        DatasetError: it cannot be split.
    """
    split = split_dataset(dataset, contents, options.val_fraction, options.test_fraction, options.seed)
    if options.shots is None:
        return split
    return split._replace(train=few_shots(dataset, split.train, options.shots, options.seed))


def _encoded_texts(text: TextSide, dataset: Dataset, options: DataOptions, bar: Bar) -> TextFeatures:
    assert dataset.texts is not None  # whoever has a text tower has read a column for it
    with bar("texts", len(set(dataset.texts))) as advance:
        return encoded_texts(text.tower, dataset.texts, options.batch_size, options.device, advance, cache=text.cache)


def examples(features: Features, dataset: Dataset, indices: Sequence[int]) -> Examples:
    """Features and targets of some of the readable files, whose data set is ``dataset``."""
    rows = list(indices)
    return Examples(features.values[rows], torch.from_numpy(dataset.targets[rows]))


def _with_views(train: Examples, views: list[Tensor]) -> Examples:
    if not views:
        return train
    return Examples(torch.cat([train.features, *views]), torch.cat([train.targets] * (1 + len(views))))


def _counted(dataset: Dataset, indices: list[int]) -> str:
    if dataset.task == REGRESSION:
        return f"{len(indices)} images"
    if dataset.task == SINGLE_LABEL:
        counts = Counter(dataset.targets[indices].tolist())
        named = [f"{label} {counts[index]}" for index, label in enumerate(dataset.labels)]
    else:
        totals = dataset.targets[indices].sum(0).astype(int)
        named = [f"{label} {total}" for label, total in zip(dataset.labels, totals, strict=True)]
    return f"{len(indices)} images: {', '.join(named)}"
