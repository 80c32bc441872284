"""The images that quantization is tuned on, and the others that it is judged by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clip_export.head_files import DataReference
from clip_toolkit import ImageError, decode, preprocess
from clip_toolkit.errors import QuantizationError
from clip_toolkit.spec import Preprocessing

LEAST_CALIBRATION, MOST_CALIBRATION = 16, 128
"""Ranges settle within some dozens of images; more of them cost time and change nothing."""

LEAST_EVALUATION, MOST_EVALUATION = 16, 2000


@dataclass(frozen=True)
class LabelledImage:
    """An image file that can be read.

    Attributes:
        path: where it is.
        name: path below its folder, for people.
        target: index of its class, or None where that is not known.
        pixels: uint8 RGB ``[size, size, 3]``, resized and cropped as the runtime does it.
        digest: of the file's content.
    """

    path: Path
    name: str
    target: int | None
    pixels: NDArray[np.uint8]
    digest: bytes


@dataclass(frozen=True)
class Evidence:
    """Images of the user's own.

    Attributes:
        calibration: to tune on.
        evaluation: to judge by; none of them is among ``calibration``, not even as a copy.
        unreadable: why other files were skipped.
        folder: where ``calibration`` was taken from, and more can be.
        source: where they come from, for people.
    """

    calibration: tuple[LabelledImage, ...]
    evaluation: tuple[LabelledImage, ...]
    unreadable: tuple[ImageError, ...]
    folder: Path
    source: str


def gather(
    labels: Sequence[str],
    rule: Preprocessing,
    calibration: Path | None = None,
    evaluation: Path | None = None,
    remembered: DataReference | None = None,
) -> Evidence | None:
    """Collect images.

    With both folders, each serves its purpose. With ``calibration`` alone, every third image of it is held out for the
    evaluation. With none, the folder that the head was trained on, if it still exists: its held-out files judge.

    Args:
        labels: class names of the model. Subfolders, where there are any, must bear these names.
        rule: from image to pixels.
        calibration: folder of images, in subfolders per class or without.
        evaluation: the same.
        remembered: what the head file says of its data.

    Returns:
        None if there are no folders at all.

    Raises:
        QuantizationError: a folder is missing or too small, images are in both, or subfolders are no classes.
    """
    reader = _Reader(labels, rule)
    if calibration is not None and evaluation is not None:
        tuned = reader.read(calibration, _images_below(calibration), MOST_CALIBRATION)
        judged = reader.read(evaluation, _images_below(evaluation), MOST_EVALUATION)
        _require_apart(tuned, judged)
        return _checked(tuned, judged, reader, calibration, f"{calibration.name} and {evaluation.name}")
    if calibration is not None:
        files = _images_below(calibration)
        parts = [path for i, path in enumerate(files) if i % 3], files[::3]
        return _split(reader, calibration, parts, f"{calibration.name}, every third image held out")
    if evaluation is not None:
        raise QuantizationError("--evaluation: needs --calibration, too: images to tune on before others can judge.")
    if remembered is None or not Path(remembered.folder).is_dir():
        return None
    folder, held_out = Path(remembered.folder), set(remembered.held_out)
    files = _images_below(folder)
    parts = (
        [path for path in files if path.relative_to(folder).as_posix() not in held_out],
        [path for path in files if path.relative_to(folder).as_posix() in held_out],
    )
    return _split(reader, folder, parts, f"the training folder {folder.name}, its held-out images judge")


def refit_images(
    folder: Path | None, evidence: Evidence | None, labels: Sequence[str], rule: Preprocessing
) -> tuple[LabelledImage, ...]:
    """Images to train the head on again, none of which judges.

    Args:
        folder: where they are; None takes the folder that the calibration images are from.
        evidence: the images that tune and judge, if there are any.
        labels: class names of the model.
        rule: from image to pixels.

    Raises:
        QuantizationError: there are fewer than `LEAST_CALIBRATION`.
    """
    folder = evidence.folder if folder is None and evidence is not None else folder
    judged = {image.digest for image in evidence.evaluation} if evidence is not None else set()
    files = [] if folder is None else [path for path in _images_below(folder) if _digest(path) not in judged]
    images = _Reader(labels, rule).read(folder, files, MOST_EVALUATION) if folder is not None else []
    if len(images) < LEAST_CALIBRATION:
        raise QuantizationError(
            f"refit: expected at least {LEAST_CALIBRATION} readable images that do not judge, got {len(images)}. "
            "Name a larger folder with --refit."
        )
    return tuple(images)


def _split(reader: _Reader, folder: Path, parts: tuple[list[Path], list[Path]], source: str) -> Evidence:
    judged = reader.read(folder, parts[1], MOST_EVALUATION)
    known = {image.digest for image in judged}
    tuned = reader.read(folder, (path for path in parts[0] if _digest(path) not in known), MOST_CALIBRATION)
    return _checked(tuned, judged, reader, folder, source)


def _checked(
    tuned: Sequence[LabelledImage], judged: Sequence[LabelledImage], reader: _Reader, folder: Path, source: str
) -> Evidence:
    for name, images, least in (
        ("calibration", tuned, LEAST_CALIBRATION),
        ("evaluation", judged, LEAST_EVALUATION),
    ):
        if len(images) < least:
            skipped = f" ({len(reader.errors)} files could not be read: {reader.errors[0]})" if reader.errors else ""
            raise QuantizationError(
                f"{name}: expected at least {least} different readable images, got {len(images)} from {source}"
                f"{skipped}. Name a larger folder with --{name}."
            )
    return Evidence(tuple(tuned), tuple(judged), tuple(reader.errors), folder, source)


def _require_apart(tuned: Sequence[LabelledImage], judged: Sequence[LabelledImage]) -> None:
    known = {image.digest: image.name for image in tuned}
    common = [image.name for image in judged if image.digest in known]
    if common:
        raise QuantizationError(
            f"evaluation: {len(common)} of its images are calibration images, too, such as {common[0]}. Judging by "
            "what was tuned on proves nothing; give folders without common images."
        )


def _images_below(folder: Path) -> list[Path]:
    """Every file that is not hidden, spread over the classes by the order of their names' hashes."""
    if not folder.is_dir():
        raise QuantizationError(
            f"{folder}: there is no such folder. Name one with images of the kind to be classified."
        )
    files = [path for path in folder.rglob("*") if path.is_file()]
    shown = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return sorted(shown, key=lambda path: hashlib.sha256(path.relative_to(folder).as_posix().encode()).digest())


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


class _Reader:
    """Reads images, leaving out copies within a folder, and remembers what could not be read."""

    def __init__(self, labels: Sequence[str], rule: Preprocessing) -> None:
        self.labels, self.rule = list(labels), rule
        self.errors: list[ImageError] = []

    def read(self, folder: Path, files: Iterable[Path], most: int) -> list[LabelledImage]:
        images: list[LabelledImage] = []
        seen: set[bytes] = set()
        for path in files:
            if len(images) == most:
                break
            image = self._image(folder, path)
            if image is not None and image.digest not in seen:
                seen.add(image.digest)
                images.append(image)
        return images

    def _image(self, folder: Path, path: Path) -> LabelledImage | None:
        name = path.relative_to(folder)
        target = self._target(folder, name.parts[0]) if len(name.parts) > 1 else None
        try:
            pixels = preprocess(decode(path), self.rule)
        except ImageError as error:
            self.errors.append(error)
            return None
        return LabelledImage(path, name.as_posix(), target, pixels, _digest(path))

    def _target(self, folder: Path, name: str) -> int:
        if name not in self.labels:
            raise QuantizationError(
                f"{folder}: the subfolder {name} is none of the model's classes ({', '.join(self.labels)}). "
                "Rename it, or give a folder of images without subfolders."
            )
        return self.labels.index(name)
