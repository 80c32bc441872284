"""From features that were computed elsewhere to examples that a head can learn from."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import torch

from clip_export.data.splits import duplicate_notes
from clip_export.features.images import ReadFiles
from clip_export.features.table import FeatureTable
from clip_export.training.epochs import Examples
from clip_export.training.options import DataOptions
from clip_export.training.preparation import Prepared, split_examples
from clip_toolkit.errors import ImageError


def prepare_features(table: FeatureTable, options: DataOptions, folder: Path) -> Prepared:
    """Split features as their images would be; each side is mapped from one file, without a copy in memory.

    Args:
        table: the features.
        options: how they are split.
        folder: where that file lies, without a name.

    Raises:
        DatasetError: the data set cannot be split, or a feature is missing.
        OutputError: there is no room for the file.
    """
    split = split_examples(table.dataset, table.contents, options)
    order = list(chain(*split))
    values, targets = table.values(order, folder), torch.from_numpy(table.dataset.targets[order])
    sizes = [len(side) for side in split]
    sides = map(Examples, values.split(sizes), targets.split(sizes))
    train, validation, test = sides
    errors = [ImageError(row.error) for row in table.rows if row.error is not None]
    return Prepared(
        dataset=table.dataset,
        split=split,
        train=train,
        validation=validation,
        test=test if split.test else None,
        reading=ReadFiles(table.kept, table.contents, errors, 0, "cache"),
        notes=tuple(duplicate_notes(table.dataset, split, table.contents)),
        has_images=False,
    )
