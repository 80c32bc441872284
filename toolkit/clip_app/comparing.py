"""Two models on the same labelled images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clip_toolkit.classifier import Classifier
from clip_toolkit.errors import DatasetError, ImageError
from clip_toolkit.files.csv_table import read_rows
from clip_toolkit.prediction import Prediction
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION

_HELD_OUT = ("test", "val")  # the first of them that there is: the head was not chosen by a test side


class Labelled(NamedTuple):
    """An image and its cells in a manifest, by column."""

    path: Path
    cells: Mapping[str, str]


class Comparison(NamedTuple):
    """How two models do.

    Attributes:
        before: figures of the first, by what they are.
        after: of the second.
        images: how many could be read.
        mended: names of images that the second alone gets right; none in a regression.
        broken: that the first alone gets right, likewise.
    """

    before: dict[str, float]
    after: dict[str, float]
    images: int
    mended: list[str]
    broken: list[str]


def read_labelled(manifest: Path) -> list[Labelled]:
    """Read the images of a manifest.

    Raises:
        DatasetError: it cannot be read.
    """
    rows = read_rows(manifest, ("path",), DatasetError)
    return [Labelled(manifest.parent / row.cells["path"], row.cells) for row in rows]


def held_out(images: Sequence[Labelled]) -> list[Labelled]:
    """Return the images of the side to judge by, of a manifest that names the side of each."""
    sides = ([image for image in images if image.cells.get("split") == side] for side in _HELD_OUT)
    return next(filter(None, sides), [])


def compare(before: Classifier, after: Classifier, images: Sequence[Labelled]) -> Comparison:
    """Run two models of the same labels over images, and compare their decisions with the right ones.

    Raises:
        DatasetError: none of the images can be read.
    """
    shares = [list(_scores(classifier, images)) for classifier in (before, after)]
    read = [(image, first, second) for image, first, second in zip(images, *shares, strict=True) if first is not None]
    if not read:
        raise DatasetError(f"none of the {len(images)} images to compare by can be read")
    names = _names(before)
    first_mean, second_mean = (
        dict(zip(names, np.mean([row[side] for row in read], axis=0).tolist(), strict=True)) for side in (1, 2)
    )
    changed: tuple[list[str], list[str]] = ([], [])
    for image, first, second in read:
        if before.spec.task != REGRESSION and first != second:
            changed[first > second].append(image.path.name)
    return Comparison(first_mean, second_mean, len(read), *changed)


def _names(classifier: Classifier) -> list[str]:
    spec = classifier.spec
    if spec.task == REGRESSION:
        return [f"mean absolute error, {name}" for name in spec.labels]
    return ["right labels" if spec.task == MULTI_LABEL else "right"]


def _scores(classifier: Classifier, images: Sequence[Labelled]) -> Iterator[list[float] | None]:
    """Yield the figures of each image, or None where it cannot be read."""
    results = classifier.predict_many([image.path for image in images], errors="return")
    for image, result in zip(images, results, strict=True):
        yield None if isinstance(result, ImageError) else _score(result, image.cells)


def _score(prediction: Prediction, cells: Mapping[str, str]) -> list[float]:
    if prediction.task == REGRESSION:
        return [abs(value - float(cells[name])) for name, value in prediction.values.items()]
    if prediction.task != MULTI_LABEL:
        return [float(prediction.label == cells["label"].strip())]
    right = {label.strip() for label in cells["label"].split(";")}
    return [float(np.mean([(label in prediction.decisions) == (label in right) for label in prediction.labels]))]
