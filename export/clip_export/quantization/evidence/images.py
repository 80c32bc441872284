"""The images that quantization is tuned on, and the others that it is judged by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_export.data.dataset import SIDES
from clip_export.data.manifest import read_manifest
from clip_export.heads.references import DataReference, content_digest
from clip_toolkit import ImageError, open_image, preprocess
from clip_toolkit.errors import DatasetError, QuantizationError
from clip_toolkit.images.folder import ImageListing
from clip_toolkit.spec.classifier import Preprocessing
from clip_toolkit.spec.tasks import SINGLE_LABEL

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
        text: that goes with it, for models that read one. The same picture may be there with several.
    """

    path: Path
    name: str
    target: int | None
    pixels: NDArray[np.uint8]
    digest: bytes
    text: str | None = None


@dataclass(frozen=True)
class Evidence:
    """Images of the user's own.

    Attributes:
        calibration: to tune on.
        evaluation: to judge by; none of them is among ``calibration``, not even as a copy or with another text.
        unreadable: why other files were skipped.
        data: folder or manifest that ``calibration`` was taken from, and more can be.
        source: where they come from, for people.
    """

    calibration: tuple[LabelledImage, ...]
    evaluation: tuple[LabelledImage, ...]
    unreadable: tuple[ImageError, ...]
    data: Path
    source: str


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


class _Found(NamedTuple):
    """An image file that may or may not be readable; fields as in `LabelledImage`."""

    path: Path
    name: str
    target: int | None
    text: str | None = None


def gather(
    wanted: Wanted,
    calibration: Path | None = None,
    evaluation: Path | None = None,
    remembered: DataReference | None = None,
) -> Evidence | None:
    """Collect images.

    With both folders, each serves its purpose. With ``calibration`` alone, every third image of it is held out for the
    evaluation, with all of its texts. With none, the data that the head was trained on, if they still exist: their
    held-out files judge.

    Args:
        wanted: what they are for.
        calibration: folder of images, in subfolders per class or without, or a manifest.
        evaluation: the same.
        remembered: what the head file says of its data.

    Returns:
        None if there are no folders at all.

    Raises:
        QuantizationError: a folder is missing or too small, images are in both, or subfolders are no classes.
    """
    reader = _Reader(wanted)
    if calibration is not None and evaluation is not None:
        tuned = reader.read(_images_of(calibration, wanted), MOST_CALIBRATION)
        judged = reader.read(_images_of(evaluation, wanted), MOST_EVALUATION)
        _require_apart(tuned, judged)
        return _checked(tuned, judged, reader, calibration, f"{calibration.name} and {evaluation.name}")
    if calibration is not None:
        files = _images_of(calibration, wanted)
        held_out = set(list(dict.fromkeys(file.name for file in files))[::3])
        return _split(
            reader,
            calibration,
            files,
            lambda file: file.name in held_out,
            f"{calibration.name}, every third image held out",
        )
    if evaluation is not None:
        raise QuantizationError("--evaluation: needs --calibration, too: images to tune on before others can judge.")
    if remembered is None or not Path(remembered.folder).exists():
        return None
    data = Path(remembered.folder)
    source = f"the training data {data.name}, its held-out images judge"
    return _split(reader, data, _images_of(data, wanted), _held_out(remembered), source)


def refit_images(data: Path | None, evidence: Evidence | None, wanted: Wanted) -> tuple[LabelledImage, ...]:
    """Images to train the head on again, none of which judges.

    Args:
        data: folder or manifest; None takes that of the calibration images.
        evidence: the images that tune and judge, if there are any.
        wanted: what they are for.

    Raises:
        QuantizationError: there are fewer than `LEAST_CALIBRATION`.
    """
    data = evidence.data if data is None and evidence is not None else data
    judged = {image.digest for image in evidence.evaluation} if evidence is not None else set()
    files = [] if data is None else _images_of(data, wanted)
    images = _Reader(wanted).read(_others(files, judged), MOST_EVALUATION)
    if len(images) < LEAST_CALIBRATION:
        raise QuantizationError(
            f"refit: expected at least {LEAST_CALIBRATION} readable images that do not judge, got {len(images)}. "
            "Name a larger folder with --refit."
        )
    return tuple(images)


def _held_out(remembered: DataReference) -> Callable[[_Found], bool]:
    """Tell the files that a head did not learn from: by content, or by name where its file is an old one."""
    names, digests = set(remembered.held_out), set(remembered.digests)

    def is_held_out(file: _Found) -> bool:
        known = bool(digests) and file.path.is_file() and content_digest(_digest(file.path).hex()) in digests
        return known or file.name in names

    return is_held_out


def _split(
    reader: _Reader, data: Path, files: Sequence[_Found], held_out: Callable[[_Found], bool], source: str
) -> Evidence:
    """Judge by the files that are ``held_out``, and tune on the others, but for copies of those."""
    judged = reader.read((file for file in files if held_out(file)), MOST_EVALUATION)
    others = (file for file in files if not held_out(file))
    tuned = reader.read(_others(others, {image.digest for image in judged}), MOST_CALIBRATION)
    return _checked(tuned, judged, reader, data, source)


def _others(files: Iterable[_Found], known: Container[bytes]) -> Iterator[_Found]:
    """Return the files whose content is not known; missing ones too, for the reader to name."""
    return (file for file in files if not file.path.is_file() or _digest(file.path) not in known)


def _checked(
    tuned: Sequence[LabelledImage], judged: Sequence[LabelledImage], reader: _Reader, data: Path, source: str
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
    return Evidence(tuple(tuned), tuple(judged), tuple(reader.errors), data, source)


def _require_apart(tuned: Sequence[LabelledImage], judged: Sequence[LabelledImage]) -> None:
    known = {image.digest for image in tuned}
    common = list({image.digest: image.name for image in judged if image.digest in known}.values())
    if common:
        raise QuantizationError(
            f"evaluation: {len(common)} of its images are calibration images, too, such as {common[0]}. Judging by "
            "what was tuned on proves nothing; give folders without common images."
        )


def _images_of(data: Path, wanted: Wanted) -> list[_Found]:
    if wanted.text_column is not None and data.is_dir():
        raise QuantizationError(
            f"{data}: the model reads a text with each image, and a folder has none. Give a CSV file with the columns "
            f"path, label and {wanted.text_column}."
        )
    return _listed(data, wanted) if data.is_file() else _images_below(data, wanted)


def _images_below(folder: Path, wanted: Wanted) -> list[_Found]:
    """Return the images of a folder, in no order that has to do with classes."""
    if not folder.is_dir():
        raise QuantizationError(
            f"{folder}: there is no such folder. Name one with images of the kind to be classified."
        )
    names = {path: path.relative_to(folder) for path in map(Path, wanted.listing.images(folder))}
    return _spread(_Found(path, name.as_posix(), _target(folder, name, wanted)) for path, name in names.items())


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


def _listed(manifest: Path, wanted: Wanted) -> list[_Found]:
    """Return the images of a manifest, in the same order."""
    try:
        dataset = read_manifest(manifest, wanted.task, wanted.text_column)
    except DatasetError as error:
        raise QuantizationError(f"{error} Or name a folder of images with --calibration.") from error
    known = wanted.task == SINGLE_LABEL and set(dataset.labels) <= set(wanted.labels)
    texts = dataset.texts or (None,) * len(dataset.files)
    return _spread(
        _Found(
            path,
            dataset.relative(i),
            wanted.labels.index(dataset.labels[dataset.targets[i]]) if known else None,
            texts[i],
        )
        for i, path in enumerate(dataset.files)
    )


def _spread(files: Iterable[_Found]) -> list[_Found]:
    return sorted(files, key=lambda file: hashlib.sha256(file.name.encode(errors="surrogateescape")).digest())


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


class _Reader:
    """Reads images, leaving out copies with the same text, and remembers what could not be read."""

    def __init__(self, wanted: Wanted) -> None:
        self.rule = wanted.preprocessing
        self.errors: list[ImageError] = []

    def read(self, files: Iterable[_Found], most: int) -> list[LabelledImage]:
        images: list[LabelledImage] = []
        seen: set[tuple[bytes, str | None]] = set()
        for file in files:
            if len(images) == most:
                break
            image = self._image(file)
            if image is not None and (image.digest, image.text) not in seen:
                seen.add((image.digest, image.text))
                images.append(image)
        return images

    def _image(self, file: _Found) -> LabelledImage | None:
        try:
            pixels = preprocess(open_image(file.path), self.rule)
        except ImageError as error:
            self.errors.append(error)
            return None
        return LabelledImage(file.path, file.name, file.target, pixels, _digest(file.path), file.text)
