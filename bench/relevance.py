"""Do heat maps show what the answer comes from? `bench/relevance.py --photos FOLDER`.

Maps of the file's own output `relevance` against occlusion, the centre of the image and noise: on drawn pictures of
one small object, whose place is known (pointing game: does the strongest patch hold a part of it?), and on photos.
Deletion: the mean probability of the decided label while the pixels are replaced with the picture's mean colour, the
most relevant first (small is good); insertion: while they appear on that colour (large is good). `--labelled` takes
photos of kinds that the head learns: half of them are learnt, and some of the others explained.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit import Classifier, load
from clip_toolkit.data.image_folder import read_image_folder
from clip_toolkit.explaining.explainer import Explainer
from clip_toolkit.explaining.occlusion import occlusion
from clip_toolkit.images.folder import ImageListing
from clip_toolkit.spec.tasks import FILE
from clip_toolkit.stream.inputs import expand

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "models"))

import draw  # noqa: E402
import scenes  # noqa: E402

LABELS = {
    "shape": ("circle", "square", "star", "heart", "arrow", "ring"),
    "colour": ("red", "green", "blue", "yellow", "purple", "black"),
}
SPAN = 0.34  # of an object, in parts of the picture: at most 12 % of it
STEPS = 16  # of a deletion
SIDE = 96  # pixels of a picture

Map = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class Drawn(NamedTuple):
    """A picture, its label, and where its object is, if that is known."""

    picture: Image.Image
    label: str
    mask: NDArray[np.bool_] | None


def drawn(by: str, names: Sequence[str], count: int, seed: int) -> Iterator[Drawn]:
    """Yield square pictures of one small object anywhere."""
    rng = np.random.default_rng(seed)
    scenes.SIZES["tiny"] = SPAN
    for number in range(count):
        label = names[number % len(names)]
        scenes.POSITIONS["anywhere"] = tuple(rng.uniform(SPAN - 1, 1 - SPAN, 2))
        scene = replace(draw.random_scene(rng), size="tiny", count=1, position="anywhere", **{by: label})
        picture, mask = draw.draw_with_mask(scene, SIDE, rng)
        yield Drawn(picture, label, np.asarray(mask.resize((SIDE, SIDE))) > 127)


def maps_of(classifier: Classifier, pixels: Pixels) -> dict[str, Map]:
    """Return the map of each way."""
    found = classifier.relevance(pixels[None])[0]
    rng, (rows, columns) = np.random.default_rng(int(pixels.sum())), found.shape
    away = np.hypot(*np.meshgrid(np.linspace(-1, 1, columns), np.linspace(-1, 1, rows)))
    noise = rng.random(found.shape, np.float32)
    return {"relevance": found, "occlusion": occlusion(classifier, pixels), "centre": -away, "random": noise}


def points_at(map_: Map, mask: NDArray[np.bool_]) -> bool:
    """Whether the strongest cell holds a part of the object."""
    row, column = np.unravel_index(map_.argmax(), map_.shape)
    rows = np.array_split(np.arange(mask.shape[0]), map_.shape[0])[row]
    columns = np.array_split(np.arange(mask.shape[1]), map_.shape[1])[column]
    return bool(mask[np.ix_(rows, columns)].any())


def areas(classifier: Classifier, pixels: Pixels, map_: Map) -> tuple[float, float]:
    """Return the areas under the curves of deletion and insertion."""
    smooth = Image.fromarray(map_.astype(np.float32)).resize(pixels.shape[1::-1], Image.Resampling.BILINEAR)
    rank = np.empty(smooth.size[0] * smooth.size[1], int)
    rank[np.argsort(-np.asarray(smooth).ravel(), kind="stable")] = np.arange(len(rank))
    first = [(rank < len(rank) * step / STEPS).reshape(pixels.shape[:2])[..., None] for step in range(STEPS + 1)]
    mean = np.rint(pixels.mean((0, 1))).astype(np.uint8)
    label = int(classifier.run(pixels[None]).probabilities[0].argmax())
    batches = [np.stack([np.where(part, a, b) for part in first]) for a, b in ((mean, pixels), (pixels, mean))]
    deleted, inserted = (np.trapezoid(classifier.run(batch).probabilities[:, label]) / STEPS for batch in batches)
    return float(deleted), float(inserted)


def command(*arguments: object) -> None:
    """Run one of our commands."""
    tool, *others = map(str, arguments)
    subprocess.run([str(Path(sys.executable).parent / tool), *others], check=True, stdout=subprocess.DEVNULL)


FORMS: dict[str, tuple[str, ...]] = {"float32": (), "int8": ("--quantize", "int8", "--min-agreement", "0.9")}


def learnt(work: Path, by: str, names: Sequence[str]) -> Path:
    """Draw 1,200 pictures into folders of their labels."""
    folder = work / by
    for number, item in enumerate(drawn(by, names, 1200, 1)):
        (folder / item.label).mkdir(parents=True, exist_ok=True)
        item.picture.save(folder / item.label / f"{number}.png")
    return folder


def exported(work: Path, data: Path, feature: str, forms: Sequence[str]) -> dict[str, Path]:
    """Train, and export in some of `FORMS`."""
    name, encoder = f"{data.stem}-{feature}", ROOT / "models" / "tiny-clip"
    head = work / f"{name}.pt"
    command("clip-train", data, "--encoder", encoder, "--out", head, "--feature", feature, "--no-cache")
    files = {form: work / f"{name}-{form}.onnx" for form in forms}
    for form, path in files.items():
        command("clip-export", "--head", head, "-o", path, "--explain", *FORMS[form])
    return files


def halves(work: Path, folder: Path) -> tuple[Path, list[Drawn]]:
    """Split a folder of label folders: a manifest of half of it to learn, and the other half."""
    dataset = read_image_folder(folder)
    order = np.random.default_rng(0).permutation(len(dataset.files))
    named = [(dataset.files[row], dataset.labels[dataset.targets[row]]) for row in order]
    first, second = named[: len(named) // 2], named[len(named) // 2 :]
    manifest = work / "learnt.csv"
    manifest.write_text("\n".join(["path,label", *(f"{path.absolute()},{label}" for path, label in first)]))
    return manifest, [Drawn(Image.open(path), label, None) for path, label in second]


def report(title: str, classifier: Classifier, images: Sequence[Drawn | Image.Image]) -> None:
    """Print a row for each way."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    right = 0
    for image in images:
        picture, label, mask = image if isinstance(image, Drawn) else (image, "", None)
        pixels = classifier.pixels(picture.convert("RGB"))
        right += classifier.predict(picture.convert("RGB")).label == label
        for name, map_ in maps_of(classifier, pixels).items():
            hit = np.nan if mask is None else float(points_at(map_, mask))
            rows.setdefault(name, []).append((hit, *areas(classifier, pixels, map_)))
    print(f"\n{title}: {len(images)} images, {right} right\n")
    print("| map | points at the object | deletion | insertion |\n| --- | --- | --- | --- |")
    for name, found in rows.items():
        hit, deleted, inserted = np.mean(found, axis=0)
        pointed = "" if np.isnan(hit) else f"{hit:.1%}"
        print(f"| {name} | {pointed} | {deleted:.3f} | {inserted:.3f} |", flush=True)


def cost(plain: Path, explained: Path, rounds: int = 200) -> None:
    """Print the milliseconds of an image without and with the output, in turns, and of occlusion."""
    files = [load(path, device="cpu", threads=1) for path in (plain, explained)]
    size = files[0].spec.preprocessing.size
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for classifier, seen in zip(files, times, strict=True):
            start = time.perf_counter()
            classifier.run(image[None])
            seen.append(time.perf_counter() - start)
    without, with_map = (float(np.median(seen)) * 1000 for seen in times)
    print(f"\nwithout {without:.2f} ms, with {with_map:.2f} ms; occlusion takes 50 runs, {50 * without:.0f} ms")


def draw_overlays(folder: Path, classifier: Classifier, images: Sequence[Drawn | Image.Image]) -> None:
    """Write overlays of images."""
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        picture = (image.picture if isinstance(image, Drawn) else image).convert("RGB")
        page = Explainer(classifier, FILE).overlay(picture, classifier.predict(picture))
        page.save(folder / f"{number}.png")


def main() -> None:
    """Draw, train, export, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="folders of photos")
    parser.add_argument("--labelled", type=Path, nargs="*", default=[], help="folders of label folders, half learnt")
    parser.add_argument("--by", nargs="*", choices=tuple(LABELS), default=tuple(LABELS))
    parser.add_argument("--forms", nargs="+", choices=tuple(FORMS), default=tuple(FORMS))
    parser.add_argument("--features", nargs="+", default=["pooled", "class+mean@3"])
    parser.add_argument("--count", type=int, default=300, help="drawn pictures that are explained")
    parser.add_argument("--cost", type=Path, nargs=2, metavar=("PLAIN", "EXPLAINED"), help="time two files instead")
    parser.add_argument("--overlays", type=Path, help="a new folder for ten overlays")
    args = parser.parse_args()
    if args.cost:
        cost(*args.cost)
        return
    photos = [Image.open(name) for name in expand(map(str, args.photos), ImageListing())]
    with tempfile.TemporaryDirectory() as work:
        for folder in args.labelled:
            data, others = halves(Path(work), folder)
            for feature in args.features:
                for form, path in exported(Path(work), data, feature, args.forms).items():
                    report(f"{folder.name}, {feature}, {form}", load(path, device="cpu"), others[: args.count])
        for by in args.by:
            names, pictures = LABELS[by], list(drawn(by, LABELS[by], args.count, 2))
            print(f"largest object: {max(item.mask.mean() for item in pictures):.1%} of its picture")
            data = learnt(Path(work), by, names)
            for feature in args.features:
                for form, path in exported(Path(work), data, feature, args.forms).items():
                    classifier = load(path, device="cpu")
                    report(f"{by}, {feature}, {form}", classifier, pictures)
                    if photos and form == "float32":
                        report(f"photos, labels of {by}, {feature}", classifier, photos)
                    if args.overlays and form == "float32" and feature == "pooled":
                        draw_overlays(args.overlays / by, classifier, [*pictures[:4], photos[0]] if photos else [])


if __name__ == "__main__":
    main()
