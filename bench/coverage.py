"""How well sets of labels keep their promise: `bench/coverage.py --digits FOLDER`.

Files are trained on few images, so that a single label is often wrong. Of all other images half, at random, calibrate
the sets at 90 %, and the other half counts how often they hold the right label; 20 such splits. Beside the shipped
score stand two others: the same with RAPS' penalty of unlikely ranks (Angelopoulos et al. 2021,
https://arxiv.org/abs/2009.14193), and the threshold on a label's own probability (Sadinle et al. 2019,
https://arxiv.org/abs/1609.00451), whose sets may be empty and are given the most probable label then.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_toolkit import Prediction, load
from clip_toolkit.data.dataset import Dataset
from clip_toolkit.data.image_folder import read_image_folder
from clip_toolkit.judging.coverage import fit_coverage
from clip_toolkit.spec.decisions import label_sets, mass_before

ROOT = Path(__file__).parents[1]
SHARE, SPLITS = 0.9, 20

Array = NDArray[np.float64]
Sets = NDArray[np.bool_]


def _shipped(known: Array, targets: Array, found: Array) -> Sets:
    return label_sets(found, fit_coverage(known, targets, SHARE).quantile)


def _by_score(score: Callable[[Array], Array]) -> Callable[[Array, Array, Array], Sets]:
    def sets(known: Array, targets: Array, found: Array) -> Sets:
        scores = np.sort(score(known)[np.arange(len(known)), targets])
        limit = scores[int(np.ceil((len(known) + 1) * SHARE)) - 1]
        most_probable = np.arange(found.shape[1]) == found.argmax(1)[:, None]
        return np.asarray((score(found) <= limit) | most_probable)

    return sets


def _penalised(probabilities: Array) -> Array:
    ranks = np.argsort(np.argsort(-probabilities, axis=1, kind="stable"), axis=1)
    return mass_before(probabilities) + 0.1 * np.maximum(0, ranks - 1)


METHODS = {
    "mass before": _shipped,
    "with RAPS' penalty": _by_score(_penalised),
    "own probability": _by_score(lambda p: 1 - p),
}


def command(*arguments: object) -> None:
    """Run one of our commands."""
    tool, *others = map(str, arguments)
    subprocess.run([str(Path(sys.executable).parent / tool), *others], check=True, capture_output=True)


def answered(name: str, work: Path, dataset: Dataset, training: int) -> tuple[Array, Array]:
    """Train and export on ``training`` images a label; return the probabilities and right labels of the others."""
    order = np.random.default_rng(0).permutation(len(dataset.files))
    rank = np.zeros(len(order), int)
    for index in range(len(dataset.labels)):
        rows = order[dataset.targets[order] == index]
        rank[rows] = np.arange(len(rows))
    sides = np.select([rank < training, rank < training + 4], ["train", "val"], "test")
    manifest, head, model = work / f"{name}.csv", work / f"{name}.pt", work / f"{name}.onnx"
    with manifest.open("w", newline="") as file:
        rows = zip(dataset.files, (dataset.labels[index] for index in dataset.targets), sides, strict=True)
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    encoder = ROOT / "models" / "tiny-clip"
    command("clip-train", manifest, "--encoder", encoder, "--out", head, "--linear", "--lr", "1e-2", "--no-cache")
    command("clip-export", "--head", head, "-o", model)
    held_out = dataset.subset(np.flatnonzero(sides == "test").tolist())
    found = [item for item in load(model, device="cpu").predict_many(held_out.files) if isinstance(item, Prediction)]
    columns = [found[0].labels.index(label) for label in dataset.labels]
    return np.stack([item.probabilities for item in found]).astype(float)[:, columns], held_out.targets


def report(name: str, probabilities: Array, targets: Array) -> None:
    """Print a row for each method."""
    accuracy = (probabilities.argmax(1) == targets).mean()
    for method, sets_of in METHODS.items():
        coverage, sizes = [], []
        for seed in range(SPLITS):
            known, found = np.array_split(np.random.default_rng(seed).permutation(len(targets)), 2)
            sets = sets_of(probabilities[known], targets[known], probabilities[found])
            coverage.append(sets[np.arange(len(found)), targets[found]].mean())
            sizes.append(sets.sum(1).mean())
        halves = f"{len(known)} + {len(found)}"
        row = (name, halves, f"{accuracy:.1%}", method, f"{np.mean(coverage):.1%}", f"{min(coverage):.1%}")
        print(f"| {' | '.join(row)} | {np.mean(sizes):.2f} |", flush=True)


def drawn(folder: Path) -> Dataset:
    """Draw small pictures of shapes."""
    options = f"{folder} --per-class 80 --seed 5 --size 40".split()
    subprocess.run([sys.executable, str(ROOT / "models" / "draw.py"), *options], check=True, capture_output=True)
    return read_image_folder(folder)


def handwritten(folder: Path) -> Dataset:
    """Write scikit-learn's handwritten digits as image files."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, target) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(target) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).astype(np.uint8)).resize((64, 64)).save(path)
    return read_image_folder(folder)


def main() -> None:
    """Draw, train, export, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=Path, help="a folder of label folders, as a further task")
    args = parser.parse_args()
    print(f"| task | images | accuracy | score | coverage, mean of {SPLITS} | worst | mean size |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        tasks = {"drawn shapes": (drawn(work / "shapes"), 2), "handwritten digits": (handwritten(work / "written"), 8)}
        tasks |= {"sign digits": (read_image_folder(args.digits), 8)} if args.digits else {}
        for name, (dataset, training) in tasks.items():
            report(name, *answered(name.replace(" ", "-"), work, dataset, training))


if __name__ == "__main__":
    main()
