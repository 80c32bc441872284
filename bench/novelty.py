"""Which distance tells images that a model never learnt from: `bench/novelty.py --digits FOLDER --photos FOLDER ...`.

Four scores on the same files, in float32 and int8: Mahalanobis++ (what clip-train --novelty fits), the mean cosine
distance of the nearest neighbours among the training images, energy and maximum softmax probability. AUROC, and the
share of strange images that pass where 95 % of the familiar ones do. Photos come from the folders named.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from clip_export.heads.novelty import Novelty, fit_novelty
from clip_toolkit import Classifier, ImageError, Prediction, load, open_image
from clip_toolkit.data.dataset import Dataset
from clip_toolkit.data.image_folder import read_image_folder
from clip_toolkit.images.folder import ImageListing
from clip_toolkit.judging.curves import area_under_roc
from clip_toolkit.spec.tasks import SINGLE_LABEL
from clip_toolkit.stream.inputs import expand

ROOT = Path(__file__).parents[1]
KNOWN = ("circle", "square", "star", "heart", "arrow", "ring")
UNKNOWN = ("triangle", "cross", "crescent", "diamond")
NEIGHBOURS = 10

Array = NDArray[np.float64]
Images = list[Image.Image] | list[Path]


class Answers(NamedTuple):
    """Embedding ``[n, dim]`` and logits ``[n, labels]``."""

    embedding: Array
    logits: Array


class Familiar(NamedTuple):
    """What the scores know of the training images."""

    novelty: Novelty
    embedding: Array


def _neighbours(known: Familiar, found: Answers) -> Array:
    nearest = np.sort(found.embedding @ known.embedding.T, axis=1)[:, -NEIGHBOURS:]
    return np.asarray(1 - nearest.mean(1))


def _softmax(_: Familiar, found: Answers) -> Array:
    return np.asarray(-np.exp(found.logits.max(1) - np.logaddexp.reduce(found.logits, axis=1)))


SHARE = 0.05  # of familiar images beyond the threshold

SCORES: dict[str, Callable[[Familiar, Answers], Array]] = {
    "Mahalanobis++": lambda known, found: known.novelty.distances(found.embedding),
    f"{NEIGHBOURS} nearest": _neighbours,
    "energy": lambda _, found: np.asarray(-np.logaddexp.reduce(found.logits, axis=1)),
    "softmax": _softmax,
}


def textures(count: int) -> Iterator[Image.Image]:
    """Yield stripes, checks, gradients and noise in random colours."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:96, 0:96] / 96
    for number in range(count):
        angle, pace = rng.uniform(0, np.pi), rng.uniform(2, 12)
        wave = np.sin(2 * np.pi * pace * (rows * np.sin(angle) + columns * np.cos(angle)))
        kinds = (wave, np.sign(wave) * np.sign(np.roll(wave, 24, 1)), 2 * rows - 1, rng.normal(0, 0.6, rows.shape))
        mix = np.clip((kinds[number % 4] + 1) / 2, 0, 1)[..., None]
        first, second = rng.integers(0, 256, (2, 3))
        yield Image.fromarray((first * mix + second * (1 - mix)).astype(np.uint8))


def corrupted(picture: Image.Image, kind: str, strength: int, rng: np.random.Generator) -> Image.Image:
    """Return the picture with noise, blur or less contrast, of strength 1 to 3."""
    if kind == "noise":
        noisy = np.asarray(picture, float) + rng.normal(0, (15, 40, 80)[strength - 1], (*picture.size[::-1], 3))
        return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    if kind == "blur":
        return picture.filter(ImageFilter.GaussianBlur(min(picture.size) * (0.01, 0.03, 0.08)[strength - 1]))
    return ImageEnhance.Contrast(picture).enhance((0.6, 0.3, 0.1)[strength - 1])


def answered(classifier: Classifier, images: Images) -> Answers:
    """Run a model over images, and leave out those that it cannot read."""
    found = [item for item in classifier.predict_many(images, errors="return") if isinstance(item, Prediction)]
    return Answers(*(np.stack([getattr(item, name) for item in found]).astype(float) for name in Answers._fields))


def command(*arguments: object) -> None:
    """Run one of our commands."""
    tool, *others = map(str, arguments)
    subprocess.run([str(Path(sys.executable).parent / tool), *others], check=True, capture_output=True)


def files_of(folders: list[Path]) -> list[Path]:
    """Return the images in folders."""
    return [Path(name) for name in expand(map(str, folders), ImageListing())]


def opened(files: list[Path]) -> Iterator[Image.Image]:
    """Yield the images that can be read."""
    for path in files:
        try:
            yield open_image(path)
        except ImageError:
            continue


def report(name: str, work: Path, data: Path, strange: dict[str, Images]) -> None:
    """Train on a side of the data, and print a table: how well each score tells the strange sets from the test side."""
    dataset = read_image_folder(data)
    order = np.random.default_rng(0).permutation(len(dataset.files))
    parts = [dataset.subset(rows.tolist()) for rows in np.split(order, [len(order) * 6 // 10, len(order) * 8 // 10])]
    manifest = work / f"{name}.csv"
    lines = [
        f"{part.files[index]},{part.labels[part.targets[index]]},{side}"
        for part, side in zip(parts, ("train", "val", "test"), strict=True)
        for index in range(len(part.files))
    ]
    manifest.write_text("\n".join(["path,label,split", *lines]))
    head, encoder = work / f"{name}.pt", ROOT / "models" / "tiny-clip"
    command("clip-train", manifest, "--encoder", encoder, "--out", head, "--linear", "--lr", "1e-2", "--no-cache")
    files = {"float32": work / f"{name}.onnx", "int8": work / f"{name}8.onnx"}
    command("clip-export", "--head", head, "-o", files["float32"])
    command("clip-export", "--head", head, "-o", files["int8"], "--quantize", "int8", "--min-agreement", "0.9")
    known = _familiar(load(files["float32"], device="cpu"), parts)
    sets = strange | {
        f"{kind} {strength}": [
            corrupted(picture, kind, strength, np.random.default_rng(index))
            for index, picture in enumerate(opened(list(parts[2].files[:150])))
        ]
        for kind in ("noise", "blur", "contrast")
        for strength in (1, 2, 3)
    }
    for form, path in files.items():
        _table(f"{name}, {form}", load(path, device="cpu"), known, list(parts[2].files), sets)


def _familiar(classifier: Classifier, parts: list[Dataset]) -> Familiar:
    train, validation = (answered(classifier, list(part.files)) for part in parts[:2])
    targets = np.asarray(parts[0].targets)
    return Familiar(fit_novelty(train.embedding, targets, SINGLE_LABEL, validation.embedding, SHARE), train.embedding)


def _table(
    title: str, classifier: Classifier, known: Familiar, familiar: list[Path], sets: Mapping[str, Images]
) -> None:
    usual = answered(classifier, familiar)
    beyond = (known.novelty.distances(usual.embedding) > known.novelty.threshold).mean()
    print(f"\n{title}: {beyond:.1%} of {len(usual.logits)} test images beyond the threshold, {SHARE:.0%} asked\n")
    print(f"| against | images | {' | '.join(SCORES)} | beyond the threshold |")
    print(f"| --- | --- |{' --- |' * (len(SCORES) + 1)}")
    for label, images in sets.items():
        odd = answered(classifier, images)
        cells = []
        for score in SCORES.values():
            near, far = score(known, usual), score(known, odd)
            true = np.arange(len(near) + len(far)) >= len(near)
            area = area_under_roc(true, np.concatenate([near, far]))
            cells.append(f"{area:.3f} ({(far <= np.quantile(near, 0.95)).mean():.0%})")
        share = (known.novelty.distances(odd.embedding) > known.novelty.threshold).mean()
        print(f"| {label} | {len(odd.logits)} | {' | '.join(cells)} | {share:.0%} |", flush=True)


def main() -> None:
    """Draw, train, export, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=Path, help="a folder of label folders, as a second task")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="folders of photos")
    args = parser.parse_args()
    photos: dict[str, Images] = {"photos": files_of(args.photos)} if args.photos else {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        draw = [sys.executable, ROOT / "models" / "draw.py"]
        for target, classes, count, seed in (("known", KNOWN, 100, 5), ("unknown", UNKNOWN, 60, 6)):
            shapes = [*draw, work / target, "--classes", *classes, "--per-class", count, "--seed", seed]
            subprocess.run([*map(str, shapes)], check=True, capture_output=True)
        strange = {"unseen shapes": files_of([work / "unknown"]), "textures": list(textures(200))} | photos
        report("shapes", work, work / "known", strange)
        if args.digits:
            report("digits", work, args.digits, {"drawn shapes": files_of([work / "unknown"])} | photos)


if __name__ == "__main__":
    main()
