"""A labelled data set as people keep it: one subfolder per class, perhaps below ``train``, ``val`` and ``test``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clip_toolkit.data.dataset import SIDES, TRAIN, Dataset
from clip_toolkit.data.manifest import unknown_label
from clip_toolkit.errors import DatasetError
from clip_toolkit.files.csv_table import SUFFIXES
from clip_toolkit.images.folder import ImageListing, is_hidden
from clip_toolkit.spec.tasks import SINGLE_LABEL


def read_image_folder(
    folder: Path,
    *,
    all_files: bool = False,
    labels: Sequence[str] | None = None,
    listing: ImageListing | None = None,
) -> Dataset:
    """List a folder with one subfolder per class, or with ``train`` and others that hold such subfolders.

    Images may lie at any depth, by the rule of `clip_toolkit.images.folder`; the subfolders themselves may be links.
    Classes and files come in sorted order.

    Args:
        folder: the folder.
        all_files: take files of any suffix.
        labels: those of a model, which the targets are to follow; by default the names of the subfolders.
        listing: remembers what is left out, in place of the data set.

    Raises:
        DatasetError: the folder is missing, has fewer than two classes, a class without files, a class in ``val``
            or ``test`` that ``train`` lacks, or one that is none of ``labels``.
    """
    if not folder.is_dir():
        if folder.suffix.lower() in SUFFIXES:
            raise DatasetError(f"{folder}: there is no such file.")
        raise DatasetError(f"{folder}: there is no such folder. Give a folder with one subfolder of images per class.")
    listing = listing or ImageListing(all_files=all_files)
    sides = _sides(folder)
    classes = _classes(sides[TRAIN] if sides else folder)
    known = tuple(labels or classes)
    for name in classes:
        if name not in known:
            raise DatasetError(f"{folder / name}: {unknown_label(name, known)}")
    found: list[tuple[Path, int, str]] = []
    for side, below in (sides or {"": folder}).items():
        _check_known(below, classes)
        for index, name in enumerate(classes):
            if (below / name).is_dir():
                found += [(path, index, side) for path in sorted(map(Path, listing.images(below / name)))]
            if side in ("", TRAIN) and (not found or found[-1][1:] != (index, side)):
                notes = "".join(f" ({note})" for note in listing.notes())
                raise DatasetError(f"{below}: no images in class {name}. Add some or remove the folder.{notes}")
    files, targets, given = zip(*found, strict=True)
    none = ("",) * len(files)
    left_out = tuple(listing.notes())
    indices = np.array([known.index(classes[target]) for target in targets])
    return Dataset(folder, folder, SINGLE_LABEL, known, files, indices, given, none, left_out=left_out)


def _sides(folder: Path) -> dict[str, Path]:
    """Return the folder of each side, if there is a ``train`` and nothing but sides beside it."""
    sides = {SIDES.get(path.name.lower(), ""): path for path in _subfolders(folder)}
    return sides if TRAIN in sides and "" not in sides else {}


def _classes(folder: Path) -> list[str]:
    classes = [path.name for path in _subfolders(folder)]
    if len(classes) < 2:
        found = f"only '{classes[0]}'" if classes else "none"
        raise DatasetError(f"{folder}: expected at least 2 class subfolders, found {found}.")
    return classes


def _check_known(folder: Path, classes: list[str]) -> None:
    for path in _subfolders(folder):
        if path.name not in classes:
            raise DatasetError(f"{path}: there is no class of this name to learn from; training has {classes}.")


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path))
