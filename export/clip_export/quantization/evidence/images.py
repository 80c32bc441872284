"""The images that quantization is tuned on, and the others that it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clip_export.heads.references import DataReference, content_digest
from clip_export.quantization.evidence.files import FoundImage, Wanted, digest_of, find_images
from clip_toolkit import ImageError, open_image, preprocess
from clip_toolkit.errors import QuantizationError

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
        tuned = reader.read(find_images(calibration, wanted), MOST_CALIBRATION)
        judged = reader.read(find_images(evaluation, wanted), MOST_EVALUATION)
        _require_apart(tuned, judged)
        return _checked(tuned, judged, reader, calibration, f"{calibration.name} and {evaluation.name}")
    if calibration is not None:
        files = find_images(calibration, wanted)
        held_out = set(list(dict.fromkeys(file.name for file in files))[::3])
        return _split(
            reader,
            calibration,
            files,
            lambda file: file.name in held_out,
            f"{calibration.name} (every third image held out)",
        )
    if evaluation is not None:
        raise QuantizationError("--evaluation: needs --calibration, too: images to tune on before others can judge.")
    if remembered is None or not Path(remembered.folder).exists():
        return None
    data = Path(remembered.folder)
    source = f"the training data {data.name} (its held-out images judge)"
    return _split(reader, data, find_images(data, wanted), _held_out(remembered), source)


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
    files = [] if data is None else find_images(data, wanted)
    images = _Reader(wanted).read(_others(files, judged), MOST_EVALUATION)
    if len(images) < LEAST_CALIBRATION:
        raise QuantizationError(
            f"refit: expected at least {LEAST_CALIBRATION} readable images that do not judge, got {len(images)}. "
            "Name a larger folder with --refit."
        )
    return tuple(images)


def judging_images(
    data: Path | None, wanted: Wanted, remembered: DataReference | None
) -> tuple[tuple[LabelledImage, ...], str, tuple[str, ...]]:
    """Return images to judge by where nothing is tuned, where they come from, and what cannot be read, for people.

    Args:
        data: folder or manifest, of which the first `MOST_EVALUATION` judge; None takes the held-out files of the
            training data.
        wanted: what they are for.
        remembered: what the head file says of its data.

    Raises:
        QuantizationError: there is no such folder, or none that is remembered.
    """
    reader = _Reader(wanted)
    if data is not None:
        return tuple(reader.read(find_images(data, wanted), MOST_EVALUATION)), data.name, tuple(map(str, reader.errors))
    if remembered is None or not Path(remembered.folder).exists():
        raise QuantizationError("there are no training data to judge by. Name a folder of typical images.")
    data, is_held_out = Path(remembered.folder), _held_out(remembered)
    files = filter(is_held_out, find_images(data, wanted))
    images = tuple(reader.read(files, MOST_EVALUATION))
    return images, f"held-out images of the training data {data.name}", tuple(map(str, reader.errors))


def _held_out(remembered: DataReference) -> Callable[[FoundImage], bool]:
    """Tell the files that a head did not learn from: by content, or by name where its file is an old one."""
    names, digests = set(remembered.held_out), set(remembered.digests)

    def is_held_out(file: FoundImage) -> bool:
        known = bool(digests) and file.path.is_file() and content_digest(digest_of(file.path).hex()) in digests
        return known or file.name in names

    return is_held_out


def _split(
    reader: _Reader, data: Path, files: Sequence[FoundImage], held_out: Callable[[FoundImage], bool], source: str
) -> Evidence:
    """Judge by the files that are ``held_out``, and tune on the others, but for copies of those."""
    judged = reader.read((file for file in files if held_out(file)), MOST_EVALUATION)
    others = (file for file in files if not held_out(file))
    tuned = reader.read(_others(others, {image.digest for image in judged}), MOST_CALIBRATION)
    return _checked(tuned, judged, reader, data, source, more_to_judge="calibration")


def _others(files: Iterable[FoundImage], known: Container[bytes]) -> Iterator[FoundImage]:
    """Return the files whose content is not known; missing ones too, for the reader to name."""
    return (file for file in files if not file.path.is_file() or digest_of(file.path) not in known)


def _checked(
    tuned: Sequence[LabelledImage],
    judged: Sequence[LabelledImage],
    reader: _Reader,
    data: Path,
    source: str,
    *,
    more_to_judge: str = "evaluation",
) -> Evidence:
    for name, images, least, option in (
        ("calibration", tuned, LEAST_CALIBRATION, "calibration"),
        ("evaluation", judged, LEAST_EVALUATION, more_to_judge),
    ):
        if len(images) < least:
            skipped = f" ({len(reader.errors)} files could not be read: {reader.errors[0]})" if reader.errors else ""
            raise QuantizationError(
                f"{name}: expected at least {least} different readable images, got {len(images)} from {source}"
                f"{skipped}. Name a larger folder with --{option}."
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


class _Reader:
    """Reads images, leaving out copies with the same text, and remembers what could not be read."""

    def __init__(self, wanted: Wanted) -> None:
        self.rule = wanted.preprocessing
        self.errors: list[ImageError] = []

    def read(self, files: Iterable[FoundImage], most: int) -> list[LabelledImage]:
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

    def _image(self, file: FoundImage) -> LabelledImage | None:
        try:
            pixels = preprocess(open_image(file.path), self.rule)
        except ImageError as error:
            self.errors.append(error)
            return None
        return LabelledImage(file.path, file.name, file.target, pixels, digest_of(file.path), file.text)
