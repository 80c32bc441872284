"""Which cosine tells altered copies from other pictures: `bench/near_duplicates.py --model model.onnx FOLDER`."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from clip_toolkit import Classifier, ImageError, load, open_image
from clip_toolkit.stream.inputs import expand

THRESHOLDS = (0.98, 0.99, 0.995)
MOST_COPIES = 200


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """Return the picture as a JPEG of that quality gives it back."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def resized(picture: Image.Image, factor: float) -> Image.Image:
    """Return the picture at another size."""
    sides = (round(picture.width * factor), round(picture.height * factor))
    return picture.resize(sides, Image.Resampling.LANCZOS)


def cropped(picture: Image.Image, share: float) -> Image.Image:
    """Return the picture without a margin that takes so much of either side's length."""
    left, top = (picture.width * share / 2, picture.height * share / 2)
    return picture.crop((round(left), round(top), round(picture.width - left), round(picture.height - top)))


ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 85": lambda picture: jpeg(picture, 85),
    "JPEG, quality 50": lambda picture: jpeg(picture, 50),
    "half the size": lambda picture: resized(picture, 0.5),
    "0.7 of the size, JPEG 75": lambda picture: jpeg(resized(picture, 0.7), 75),
    "2 % cropped": lambda picture: cropped(picture, 0.02),
    "5 % cropped": lambda picture: cropped(picture, 0.05),
    "10 % cropped": lambda picture: cropped(picture, 0.1),
    "10 % brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
}


def main() -> None:
    """Measure and print a table in Markdown."""
    args = parse_args()
    classifier = load(args.model, device="cpu")
    pictures = list(opened(args.folder))
    originals = embeddings(classifier, pictures)
    chosen = np.random.default_rng(0).permutation(len(pictures))[:MOST_COPIES]
    print(f"| {args.folder}: {len(pictures)} pictures |" + "".join(f" {value} |" for value in THRESHOLDS))
    print("| --- |" + " --- |" * len(THRESHOLDS))
    for name, alter in ALTERATIONS.items():
        copies = embeddings(classifier, [alter(pictures[i]) for i in chosen])
        cosines = (copies * originals[chosen]).sum(axis=1)
        print(f"| {name} |" + "".join(f" {np.mean(cosines >= value):.0%} |" for value in THRESHOLDS))
    pairs = (originals @ originals.T)[np.triu_indices(len(originals), 1)]
    print(f"| pairs of {len(pairs)} of other pictures |" + "".join(f" {(pairs >= v).sum()} |" for v in THRESHOLDS))


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="pictures, all different")
    parser.add_argument("--model", help="model file")
    return parser.parse_args()


def opened(folder: str) -> Iterator[Image.Image]:
    """Yield the pictures in a folder, upright and no larger than 800 pixels."""
    for name in expand([folder]):
        try:
            picture = open_image(Path(name)).copy()
        except ImageError:
            continue
        picture.thumbnail((800, 800))
        yield picture


def embeddings(classifier: Classifier, pictures: list[Image.Image]) -> np.ndarray:
    """float32 ``[pictures, dim]``."""
    return np.stack([result.embedding for result in classifier.predict_many(pictures)])


if __name__ == "__main__":
    main()
