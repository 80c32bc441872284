"""``bench/frontier.py [DIGITS]``: what depth and input size cost in accuracy, at the shares that bench/depths.py times.

ViT-B/32 has random weights there, so that only its time can be measured. tiny-clip is trained: of its 4 blocks 2 are
the half, as 6 of 12, and 1 is a quarter, which is less than 4 of 12; 48 of 64 pixels leave 9 of 16 patches, as 160 of
224 leave 25 of 49. Each with the best MLP of bench/training.py, frozen and after ``--unfreeze --distil``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from finetuning import FROZEN, cut_scores

from clip_export.data.splits import split_dataset
from clip_export.encoders.image import Encoder
from clip_export.features.images import image_features
from clip_export.training.judging.decisions import plain_score
from clip_export.training.loop import train_head
from clip_export.training.preparation import examples
from clip_toolkit.data.image_folder import read_image_folder
from training import ENCODER
from tuning import draw_sets

SIZES = (64, 48)
CUTS = ("class+mean@2", "class+mean@1")
SEEDS = range(3)


def frozen_score(photos: Path, seed: int, feature: str, size: int) -> float:
    """Test accuracy of a head on the frozen encoder."""
    encoder = Encoder.from_pretrained(str(ENCODER), feature=feature, input_size=size)
    data = read_image_folder(photos)
    features = image_features(encoder, data.files)
    data = data.subset(features.kept)
    train, validation, test = (
        examples(features, data, side) for side in split_dataset(data, features.contents, 0.2, 0.2, seed)
    )
    head = train_head(train, validation, len(data.labels), replace(FROZEN, seed=seed)).head
    return plain_score(head, test, data.task)


def distilled_score(photos: Path, folder: Path, seed: int, feature: str) -> float:
    """Test accuracy after all blocks of a cut encoder have learnt, at its own size: others do not go with it."""
    scores = cut_scores(photos, folder, seed, feature)
    return next(score for name, score in scores.items() if name.endswith("--distil"))


def rows(photos: Path, folder: Path) -> Iterator[tuple[str, list[float]]]:
    """Yield the points and their test accuracy in every split."""
    for feature, size in product(("pooled", *CUTS), SIZES):
        yield f"{feature} | {size} | frozen", [frozen_score(photos, seed, feature, size) for seed in SEEDS]
    for feature in CUTS:
        yield (
            f"{feature} | {SIZES[0]} | distilled",
            [distilled_score(photos, folder, seed, feature) for seed in SEEDS],
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench/frontier.py", description="Measure what cut encoders decide.")
    parser.add_argument("digits", type=Path, nargs="?", help="folder with one subfolder per digit")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for kind, photos in draw_sets(Path(name), args.digits).items():
            print(
                f"\n| {kind}: feature | input | blocks | test accuracy | each split |\n| --- | --- | --- | --- | --- |"
            )
            for point, found in rows(photos, Path(name)):
                each = ", ".join(f"{100 * score:.1f}" for score in found)
                print(f"| {point} | {np.mean(found):.1%} | {each} |", flush=True)


if __name__ == "__main__":
    main()
