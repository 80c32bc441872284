"""A labelled data set as people keep it: one subfolder per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clip_toolkit.errors import DatasetError


@dataclass(frozen=True)
class ImageFolder:
    """Files and their classes.

    Attributes:
        classes: names of the subfolders, sorted.
        files: every file below them that is not hidden, sorted within its class.
        targets: index into ``classes`` for each file.
    """

    classes: tuple[str, ...]
    files: tuple[Path, ...]
    targets: tuple[int, ...]


def read_image_folder(folder: Path) -> ImageFolder:
    """List a folder with one subfolder per class.

    Raises:
        DatasetError: the folder is missing, has fewer than two classes, or a class without files.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: there is no such folder. Give a folder with one subfolder of images per class.")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        found = f"only '{classes[0]}'" if classes else "none"
        raise DatasetError(f"{folder}: expected at least 2 class subfolders, found {found}.")
    files = [_files(folder / name) for name in classes]
    empty = [name for name, inside in zip(classes, files, strict=True) if not inside]
    if empty:
        raise DatasetError(f"{folder}: no images in class {', '.join(empty)}. Add some or remove the folder.")
    targets = [index for index, inside in enumerate(files) for _ in inside]
    return ImageFolder(tuple(classes), tuple(path for inside in files for path in inside), tuple(targets))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def require_every_class(classes: Sequence[str], targets: Sequence[int]) -> None:
    """Check that enough files could be read.

    Raises:
        DatasetError: a class has fewer than two of them, one each for training and validation.
    """
    for index, name in enumerate(classes):
        readable = targets.count(index)
        if readable < 2:
            raise DatasetError(f"class {name}: expected at least 2 readable images, got {readable}. Add some.")


def stratified_split(targets: Sequence[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices for training and validation, with ``fraction`` of each class, and at least one, in the latter.

    Every class needs two members (`require_every_class`).

    Raises:
        DatasetError: ``fraction`` is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise DatasetError(f"validation fraction: expected above 0 and below 1, got {fraction}")
    rng = np.random.default_rng(seed)
    train: list[int] = []
    validation: list[int] = []
    for target in sorted(set(targets)):
        members = rng.permutation([i for i, other in enumerate(targets) if other == target]).tolist()
        held_out = min(max(1, round(fraction * len(members))), len(members) - 1)
        validation += members[:held_out]
        train += members[held_out:]
    return sorted(train), sorted(validation)
