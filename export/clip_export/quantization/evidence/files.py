"""Which image files a folder or a manifest offers, before any of them is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from clip_toolkit.data.dataset import SIDES
from clip_toolkit.data.manifest import read_manifest
from clip_toolkit.errors import DatasetError, QuantizationError
from clip_toolkit.images.folder import ImageListing
from clip_toolkit.spec.classifier import Preprocessing
from clip_toolkit.spec.tasks import SINGLE_LABEL


@dataclass(frozen=True)
class Wanted:
    """What images are read for.

    Attributes:
        labels: of the model; subfolders, where there are any, must bear these names.
        preprocessing: from image to pixels.
        task: one of `clip_toolkit.spec.tasks.TASKS`; classes of images are known for ``single-label`` only.
        text_column: where manifests have the texts, for models that read some: for those, folders will not do.
        listing: how folders are listed, and where to ask afterwards what was left out.
    """

    labels: tuple[str, ...]
    preprocessing: Preprocessing
    task: str = SINGLE_LABEL
    text_column: str | None = None
    listing: ImageListing = field(default_factory=ImageListing)


class FoundImage(NamedTuple):
    """An image file that may or may not be readable; fields as in `LabelledImage` of the module ``images``."""

    path: Path
    name: str
    target: int | None
    text: str | None = None


def find_images(data: Path, wanted: Wanted) -> list[FoundImage]:
    """List the images of a folder or a manifest, in no order that has to do with classes.

    Raises:
        QuantizationError: it is missing or unfit, or subfolders are no classes.
    """
    if wanted.text_column is not None and data.is_dir():
        raise QuantizationError(
            f"{data}: the model reads a text with each image, and a folder has none. Give a CSV file with the columns "
            f"path, label and {wanted.text_column}."
        )
    return _listed(data, wanted) if data.is_file() else _images_below(data, wanted)


def _images_below(folder: Path, wanted: Wanted) -> list[FoundImage]:
    if not folder.is_dir():
        raise QuantizationError(
            f"{folder}: there is no such folder. Name one with images of the kind to be classified."
        )
    names = {path: path.relative_to(folder) for path in map(Path, wanted.listing.images(folder))}
    return _spread(FoundImage(path, name.as_posix(), _target(folder, name, wanted)) for path, name in names.items())


def _target(folder: Path, name: Path, wanted: Wanted) -> int | None:
    """Index of the class whose subfolder a file lies in, perhaps below one of ``train`` and its like."""
    parents = name.parts[:-1]
    if parents and parents[0] not in wanted.labels and parents[0].lower() in SIDES:
        parents = parents[1:]
    if not parents or wanted.task != SINGLE_LABEL:
        return None
    if parents[0] not in wanted.labels:
        raise QuantizationError(
            f"{folder}: the subfolder {parents[0]} is none of the model's classes ({', '.join(wanted.labels)}). "
            "Rename it, or give a folder of images without subfolders."
        )
    return wanted.labels.index(parents[0])


def _listed(manifest: Path, wanted: Wanted) -> list[FoundImage]:
    try:
        dataset = read_manifest(manifest, wanted.task, wanted.text_column)
    except DatasetError as error:
        raise QuantizationError(f"{error} Or name a folder of images.") from error
    known = wanted.task == SINGLE_LABEL and set(dataset.labels) <= set(wanted.labels)
    texts = dataset.texts or (None,) * len(dataset.files)
    return _spread(
        FoundImage(
            path,
            dataset.relative(i),
            wanted.labels.index(dataset.labels[dataset.targets[i]]) if known else None,
            texts[i],
        )
        for i, path in enumerate(dataset.files)
    )


def _spread(files: Iterable[FoundImage]) -> list[FoundImage]:
    return sorted(files, key=lambda file: hashlib.sha256(file.name.encode(errors="surrogateescape")).digest())


def digest_of(path: Path) -> bytes:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).digest()
