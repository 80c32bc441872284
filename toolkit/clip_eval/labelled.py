"""The labelled images that a model is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clip_toolkit.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from clip_toolkit.data.image_folder import read_image_folder
from clip_toolkit.data.manifest import read_manifest
from clip_toolkit.errors import DatasetError
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.tasks import SINGLE_LABEL
from clip_toolkit.stream.text_table import TEXT_COLUMN


def read_labelled(
    path: Path, spec: ModelSpec, *, slices: Sequence[str] = (), text_column: str | None = None, all_files: bool = False
) -> Dataset:
    """Read labelled images by the labels of a model.

    Args:
        path: a folder with one subfolder a label, or a manifest.
        spec: of the model.
        slices: columns of the manifest to keep.
        text_column: that of the texts, where the model reads one with each image.
        all_files: take files of any suffix from a folder.

    Raises:
        DatasetError: the data have labels that the model lacks, or not what it needs.
    """
    if spec.text is None and text_column is not None:
        raise DatasetError("--text-column: this model reads images alone. Leave it out.")
    if path.is_file():
        column = (text_column or TEXT_COLUMN) if spec.text is not None else None
        return read_manifest(path, spec.task, column, labels=spec.labels, columns=slices)
    if spec.text is not None or spec.task != SINGLE_LABEL or slices:
        needs = "reads a text with each image" if spec.text is not None else f"has the task {spec.task}"
        reason = f"the model {needs}" if spec.text is not None or spec.task != SINGLE_LABEL else "--slice names columns"
        raise DatasetError(f"{path}: {reason}, which a folder cannot hold. Give a CSV file or JSON lines as DATA.")
    return read_image_folder(path, all_files=all_files, labels=spec.labels)


def take_side(dataset: Dataset, side: str | None) -> tuple[Dataset, str]:
    """Return the images of one side, and a remark on which they are.

    Args:
        dataset: all images.
        side: ``test``, ``val``, ``train`` or ``all``; None for the test side, or the validation side if there is none,
            or all images where the data name no sides.

    Raises:
        DatasetError: there are no images on that side, or they have one label in all.
    """
    named = {name: [i for i, found in enumerate(dataset.sides) if found == name] for name in (TEST, VALIDATION, TRAIN)}
    if not any(named.values()) and side in (None, "all"):
        chosen, remark = dataset, "all: DATA names no sides, so that images the model was trained on may be among them"
    elif side == "all":
        chosen, remark = dataset, "all, those of the training side included"
    else:
        name = side or next((name for name in (TEST, VALIDATION) if named[name]), TEST)
        if not named[name]:
            counts = ", ".join(f"{len(rows)} {other}" for other, rows in named.items())
            raise DatasetError(f"{dataset.source}: there are no images on the side {name} ({counts}). Try --side all.")
        chosen, remark = dataset.subset(named[name]), f"of the side {name}"
    _check_labels(chosen)
    return chosen, remark


def _check_labels(dataset: Dataset) -> None:
    if dataset.task == SINGLE_LABEL and len(np.unique(dataset.targets)) < 2:
        label = dataset.labels[int(dataset.targets[0])]
        raise DatasetError(
            f"{dataset.source}: every image has the label {label!r}, and how well a model tells labels apart does not "
            "show on one. Add images of others."
        )
