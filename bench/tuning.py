"""``bench/tuning.py [DIGITS]``: what ``clip-tune`` chooses against the whole encoder, on images that it has not seen.

On shapes as models/draw.py draws them, on drawn coats (spotted, striped or plain fur, which only texture tells apart),
and, if it is named, on the ``Dataset`` folder of the Sign Language Digits.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from clip_export.encoders.feature_names import POOLED
from clip_export.training.options import DataOptions
from clip_export.training.preparation import read_dataset
from clip_export.tuning.options import Limits, TuningData
from clip_export.tuning.receipt import time_text
from clip_export.tuning.tune import Tuned, tune
from training import ENCODER, ROOT

COATS = ("plain", "spotted", "striped")
TOLD = (
    "chosen encoder",
    "chosen feature",
    "chosen precision",
    "size",
    "cross-validation accuracy",
    "held-out accuracy",
)


def draw_shapes(folder: Path) -> Path:
    """Coloured shapes on any background."""
    command = ["models/draw.py", str(folder), "--size", "160", "--per-class", "80", "--seed", "3"]
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return folder


def draw_coats(folder: Path, per_label: int = 200) -> Path:
    """Fur of any colour and direction: the labels have the same colours, and differ in pattern alone."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[0:160, 0:160]
    for index in range(per_label * len(COATS)):
        label, angle, scale = COATS[index % len(COATS)], rng.uniform(0, np.pi), rng.uniform(12, 26)
        along, across = (rows * np.cos(turn) + columns * np.sin(turn) for turn in (angle, angle + np.pi / 2))
        bend = scale * np.sin(along / rng.uniform(30, 60))
        waves = {"plain": 0 * rows, "striped": np.sin((across + bend) / scale * 4)}
        waves["spotted"] = np.sin(along / scale * 4) * np.sin((across + bend) / scale * 4)
        noise = Image.fromarray(rng.normal(128, 80, (160, 160)).clip(0, 255).astype(np.uint8))
        hairs = np.asarray(noise.filter(ImageFilter.GaussianBlur(1)), np.float64) - 128
        tone = rng.uniform(60, 190, 3) + rng.uniform(4, 20) * waves[label][..., None] + 0.7 * hairs[..., None]
        path = folder / label / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tone.clip(0, 255).astype(np.uint8)).save(path)
    return folder


def draw_sets(folder: Path, digits: Path | None = None, only: str | None = None) -> dict[str, Path]:
    """Draw the sets, or one of them alone, and add the digits if they are there."""
    drawn = {"shapes": draw_shapes, "coats": draw_coats}
    sets = {kind: draw(folder / kind) for kind, draw in drawn.items() if only in (None, kind)}
    return sets | ({"digits": digits} if digits else {})


def speed(tuned: Tuned) -> str:
    """Compare the chosen file with the whole encoder's of the same precision."""
    chosen = tuned.choice.found
    (whole,) = (
        item
        for item in tuned.found
        if (item.encoder, item.feature, item.precision) == (tuned.reference.encoder, POOLED, chosen.precision)
    )
    return f"{time_text(chosen)}, {whole} {time_text(whole)}, {whole.seconds / chosen.seconds:.2f} times as fast"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench/tuning.py", description="Measure what clip-tune chooses.")
    parser.add_argument("digits", type=Path, nargs="?", help="folder with one subfolder per digit")
    parser.add_argument("--only", choices=("shapes", "coats"), help="this set alone")
    parser.add_argument("--minutes", type=float, default=3.0, help="of each search")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for kind, folder in draw_sets(Path(name), args.digits, args.only).items():
            dataset, out = read_dataset(folder, DataOptions()), Path(name) / f"{kind}-tuned"
            out.mkdir()
            asked = TuningData(input_sizes=(48,))
            # The others are chosen from what the first has measured.
            for limits in (Limits(), Limits(max_drop=0.5), Limits(no_worse=True)):
                found = tune(dataset, (str(ENCODER),), out, limits, asked, minutes=args.minutes, say=print)
                print(f"{kind}, {len(dataset.files)} images, {limits}")
                for told in TOLD:
                    print(f"  {told}: {found.head.training[told]}")
                print(f"  time: {speed(found)}, {found.machine}", flush=True)


if __name__ == "__main__":
    main()
