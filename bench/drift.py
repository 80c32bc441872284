"""Does ``clip-eval --drift`` tell changes on real images, and nothing where nothing has changed?

``drift.py FOLDER --photos FOLDER ...``: a head with novelty learns from a third of a folder of label folders. Of the
others 500 are the reference and 300 come later, three times: as they are, with more of one label of ten, corrupted
at three strengths; and 60 crops of photos. Prints how often drift is told, and the median p of each test.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from novelty import ROOT, command, corrupted, files_of, opened
from PIL import Image

from clip_eval.commands.evaluate import main as clip_eval
from clip_toolkit.data.image_folder import read_image_folder

TIMES, REFERENCE, LATER, CROPS = 3, 500, 300, 60
SHARES = (0.2, 0.3, 0.5)

Labelled = list[tuple[Path, str]]


def manifest(path: Path, rows: Labelled) -> Path:
    """Write the paths and labels of images."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    return path


def saved(folder: Path, pictures: list[Image.Image]) -> Path:
    """Write pictures into a folder."""
    folder.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
    return folder


def crops(photos: list[Path], rng: np.random.Generator) -> Iterator[Image.Image]:
    """Yield squares out of photos."""
    known = list(opened(photos))
    for number in range(CROPS):
        picture = known[number % len(known)]
        side = int(min(picture.size) * rng.uniform(0.3, 0.9))
        left, top = (int(rng.integers(0, length - side)) for length in picture.size)
        yield picture.crop((left, top, left + side, top + side)).resize((100, 100))


def with_share(rows: Labelled, spare: Labelled, share: float) -> list[Path]:
    """Return images of which label 0 has a share, as many as `LATER` where there are enough of it; none twice."""
    first = [path for path, label in [*rows, *spare] if label == "0"][: round(share * LATER)]
    others = [path for path, label in rows if label != "0"]
    return first + others[: round(len(first) * (1 - share) / share)]


def later(
    rows: Labelled, spare: Labelled, photos: list[Path], rng: np.random.Generator
) -> Iterator[tuple[str, list[Image.Image]]]:
    """Yield what comes later, by name."""
    plain = [picture.convert("RGB") for picture in opened([path for path, _ in rows])]
    yield "the same kind", plain
    for share in SHARES:
        yield f"label 0 in {share:.0%}", list(opened(with_share(rows, spare, share)))
    for kind, strength in product(("noise", "blur", "contrast"), (1, 2, 3)):
        yield f"{kind} {strength}", [corrupted(one, kind, strength, rng) for one in plain]
    yield "photos", list(crops(photos, rng))


def drift(watched: Path, folder: Path) -> dict[str, Any]:
    """Return what the command tells."""
    written = io.StringIO()
    with redirect_stdout(written):
        clip_eval(["--drift", str(watched), str(folder), "--json"])
    return dict(json.loads(written.getvalue()))


def main() -> None:
    """Train, watch, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    options = parser.parse_args()
    dataset, photos = read_image_folder(options.folder), files_of(options.photos)
    rows = [
        (path.absolute(), dataset.labels[int(target)])
        for path, target in zip(dataset.files, dataset.targets, strict=True)
    ]
    rng = np.random.default_rng(0)
    rows = [rows[index] for index in rng.permutation(len(rows))]
    known = len(rows) // 3
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as there:
        work = Path(there)
        trained = manifest(work / "train.csv", rows[:known])
        command(
            "clip-train", trained, "--encoder", ROOT / "models" / "tiny-clip", "--novelty", "--out", work / "head.pt"
        )
        command("clip-export", "--head", work / "head.pt", "-o", work / "model.onnx")
        for time in range(TIMES):
            new = [rows[known + index] for index in rng.permutation(len(rows) - known)]
            came, spare = new[REFERENCE : REFERENCE + LATER], new[REFERENCE + LATER :]
            data, watched = manifest(work / "reference.csv", new[:REFERENCE]), work / f"watched-{time}.onnx"
            command("clip-eval", work / "model.onnx", data, "--reference", "--output", watched)
            for number, (name, pictures) in enumerate(later(came, spare, photos, rng)):
                found.setdefault(name, []).append(drift(watched, saved(work / f"{time}-{number}", pictures)))
    print("| later images | how many | drift told | median p: labels | novelty | embedding |")
    print("| --- |" + " --- |" * 5)
    for name, runs in found.items():
        told = sum(bool(run["drift"]) for run in runs)
        medians = np.median([[test["p"] for test in run["tests"]] for run in runs], axis=0)
        counts = "/".join(str(run["found"]["images"]) for run in runs)
        print(f"| {name} | {counts} | {told} of {len(runs)} | {' | '.join(f'{p:.2g}' for p in medians)} |")


if __name__ == "__main__":
    main()
