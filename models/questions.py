"""``models/questions.py OUT``: drawn pictures, each with a question whose answer takes both of them.

OUT gets the pictures and ``questions.csv`` with the columns ``path``, ``question`` and ``label``. A question is put
about every colour and shape equally often, and so is every colour and shape shown: neither the picture nor the question
alone says anything of the answer. A wrong question is wrong in one word.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from draw import draw, random_size
from PIL import Image
from scenes import SHAPES, random_scene

ANSWERS = ("no", "yes")
PHRASINGS = ("is this a {colour} {shape}?", "a {colour} {shape}?", "do you see a {colour} {shape}?")


class Question(NamedTuple):
    """A picture, a question about it, and the right one of `ANSWERS`."""

    picture: Image.Image
    text: str
    answer: str


def questions(
    seed: int, shapes: Sequence[str] = SHAPES[:4], colours: Sequence[str] = ("red", "green", "blue", "yellow")
) -> Iterator[Question]:
    """Yield questions without end, with "no" and "yes" in turn; the pictures have a single object each."""
    rng = np.random.default_rng((seed, 3))
    for number in itertools.count():
        shown = {"shape": str(rng.choice(shapes)), "colour": str(rng.choice(colours))}
        asked = dict(shown)
        if not number % 2:
            word = ("shape", "colour")[rng.integers(2)]
            others = [name for name in (shapes if word == "shape" else colours) if name != shown[word]]
            asked[word] = str(rng.choice(others))
        scene = replace(random_scene(rng), count=1, **shown)
        picture = draw(scene, random_size(rng), rng)
        yield Question(picture, str(rng.choice(PHRASINGS)).format(**asked), ANSWERS[number % 2])


def write_questions(folder: Path, count: int, seed: int) -> Path:
    """Write so many questions and return their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "questions.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "question", "label"])
        for number, (picture, text, answer) in zip(range(count), questions(seed), strict=False):
            picture.save(folder / f"{number:04}.png")
            rows.writerow([f"{number:04}.png", text, answer])
    return manifest


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Draw pictures, each with a question and its answer.")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--count", type=int, default=400, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main() -> int:
    """Run the program; report bad input as one line."""
    args = parse_args()
    try:
        print(f"wrote {write_questions(args.out, args.count, args.seed)}")
    except (OSError, ValueError) as error:
        print(f"questions.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
