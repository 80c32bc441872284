"""``bench/finetuning.py DIGITS``: what ``--unfreeze`` and ``--distil`` cost and give; rewrites its part of the page.

DIGITS is the ``Dataset`` folder of the Sign Language Digits Dataset (github.com/ardamavi/Sign-Language-Digits-Dataset).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sections import replaced_section
from torch import Tensor, nn

from clip_export.data.splits import split_dataset
from clip_export.encoders.image import Encoder
from clip_export.features.cache import FeatureCache
from clip_export.features.images import image_features
from clip_export.heads.mlp import VLMtoMLP
from clip_export.training.epochs import Examples, improvement
from clip_export.training.finetuning.distillation import whole_encoder
from clip_export.training.finetuning.finetune import finetune, make_updates
from clip_export.training.finetuning.halves import LowerHalf, UpperHalf
from clip_export.training.finetuning.hidden_states import features_of, hidden_cache, hidden_states
from clip_export.training.finetuning.options import FinetuningOptions
from clip_export.training.judging.baseline import fit_baseline
from clip_export.training.judging.decisions import plain_score
from clip_export.training.loop import train_head
from clip_export.training.objective import Objective
from clip_export.training.options import TrainingOptions
from clip_export.training.preparation import examples
from clip_export.training.run import Pace, Run
from clip_toolkit import open_image, preprocess
from clip_toolkit.data.dataset import Dataset
from clip_toolkit.data.image_folder import read_image_folder
from clip_toolkit.images.preprocess import normalise
from encoders import SUBJECTS, save_checkpoint
from training import ENCODER, ROOT, few

SEEDS = range(5)
TRIED = ((1, 3e-4), (2, 3e-4), (4, 3e-4), (2, FinetuningOptions(2).learning_rate))
"""Blocks that learn, and at which rate."""

EPOCHS = 20
CUT = ("class@2", "class+mean@2")
CUT_EPOCHS = 12
PHOTOS = 8  # of each class, for the large encoder
ROUNDS = 3

FROZEN = TrainingOptions(
    optimizer="adamw", learning_rate=1e-3, weight_decay=1e-2, epochs=200, patience=15, standardise=True
)
"""The best MLP of bench/training.py."""


def accuracies(digits: Path, folder: Path) -> Iterator[str]:
    """Test accuracy of frozen and fine-tuned encoders over several splits."""
    cache = folder / "cache"
    found: dict[str, list[float]] = {}
    for seed in SEEDS:
        encoder = Encoder.from_pretrained(str(ENCODER))
        data = read_image_folder(digits)
        features = image_features(encoder, data.files, cache=FeatureCache(cache, encoder))
        data = data.subset(features.kept)
        split = split_dataset(data, features.contents, 0.2, 0.2, seed)
        train, validation, test = (examples(features, data, side) for side in split)
        options = replace(FROZEN, seed=seed)
        head = train_head(train, validation, len(data.labels), options).head
        found.setdefault("frozen, logistic regression", []).append(
            plain_score(fit_baseline(train, data.task), test, data.task)
        )
        found.setdefault("frozen, MLP 256", []).append(plain_score(head, test, data.task))
        for blocks, rate in TRIED:
            name = f"`--unfreeze {blocks} --encoder-lr {rate:g}`"
            tuning = FinetuningOptions(blocks, EPOCHS, rate)
            tuned = Tuned(data, split, cache, replace(options, patience=None))
            found.setdefault(name, []).append(tuned.accuracy(head, tuning))
        print(
            f"seed {seed}: " + ", ".join(f"{name} {scores[-1]:.1%}" for name, scores in found.items()), file=sys.stderr
        )
    yield f"| tiny-clip, {len(data.files)} photos, 10 classes | test accuracy | over the frozen MLP |"
    yield "| --- | --- | --- |"
    for name, scores in found.items():
        gains = 100 * (np.array(scores) - found["frozen, MLP 256"])
        gain = f"{gains.mean():+.1f} points, {gains.min():+.1f} at least" if "unfreeze" in name else ""
        yield f"| {name} | {np.mean(scores):.1%} +- {np.std(scores, ddof=1):.1%} | {gain} |"


def distilled(digits: Path, folder: Path, seeds: Iterable[int] = SEEDS) -> Iterator[str]:
    """Test accuracy of encoders cut in the middle: frozen, fine-tuned by the labels, and distilled beside them."""
    found: dict[str, list[float]] = {}
    for seed, feature in product(seeds, CUT):
        scores = cut_scores(digits, folder, seed, feature)
        for name, score in scores.items():
            found.setdefault(name, []).append(score)
        print(f"seed {seed}: " + ", ".join(f"{name} {score:.1%}" for name, score in scores.items()), file=sys.stderr)
    yield f"| tiny-clip cut after block 2, {CUT_EPOCHS} epochs | test accuracy | over the frozen cut |"
    yield "| --- | --- | --- |"
    for name, column in found.items():
        cut = next((feature for feature in CUT if name.startswith(f"{feature} ")), None)
        gains = 100 * (np.array(column) - found[f"frozen, {cut}"]) if cut else None
        gain = "" if gains is None else f"{gains.mean():+.1f} points, {gains.min():+.1f} at least"
        yield f"| {name} | {np.mean(column):.1%} +- {np.std(column, ddof=1):.1%} | {gain} |"


def cut_scores(photos: Path, folder: Path, seed: int, feature: str) -> dict[str, float]:
    """Test accuracy of one split: all blocks, and a cut encoder that is frozen, fine-tuned, and distilled, too."""
    encoder = Encoder.from_pretrained(str(ENCODER), feature=feature)
    whole = whole_encoder(encoder)
    data = read_image_folder(photos)
    features, taught = (
        image_features(each, data.files, cache=FeatureCache(folder / "cache", each)) for each in (encoder, whole)
    )
    data = data.subset(features.kept)
    split = split_dataset(data, features.contents, 0.2, 0.2, seed)
    train, validation, test = (examples(features, data, side) for side in split)
    options = replace(FROZEN, seed=seed)
    head = train_head(train, validation, len(data.labels), options).head
    above = [examples(taught, data, side) for side in split]
    best = train_head(*above[:2], len(data.labels), options).head
    tuned = Tuned(data, split, folder / "cache", replace(options, patience=None), feature)
    depth = encoder.tokens.depth
    tuning = FinetuningOptions(depth, CUT_EPOCHS, 3e-4)
    return {
        f"all blocks frozen, {whole.feature}": plain_score(best, above[2], data.task),
        f"frozen, {feature}": plain_score(head, test, data.task),
        f"{feature} --unfreeze {depth}": tuned.accuracy(head, tuning),
        f"{feature} --unfreeze {depth} --distil": tuned.accuracy(head, replace(tuning, distil=1.0), taught.values),
    }


class Tuned(NamedTuple):
    """A split to fine-tune on.

    Attributes:
        data: the data set.
        split: who is on which side.
        cache: where hidden states are kept.
        options: how the head learns.
        feature: that the head reads.
    """

    data: Dataset
    split: Sequence[list[int]]
    cache: Path
    options: TrainingOptions
    feature: str = "pooled"

    def accuracy(self, head: VLMtoMLP, tuning: FinetuningOptions, taught: Tensor | None = None) -> float:
        """Test accuracy after fine-tuning from a head; on the training images features of all may be imitated."""
        encoder = Encoder.from_pretrained(str(ENCODER), feature=self.feature)
        train, validation, test = (self._side(encoder, side, tuning.blocks) for side in self.split)
        imitated = None if taught is None else train._replace(targets=taught[list(self.split[0])])
        upper = UpperHalf(encoder, tuning.blocks)
        trained = finetune(upper, head, train, validation, tuning, head_options=self.options, imitated=imitated)
        features = features_of(upper, test.features)
        return plain_score(trained.head, test._replace(features=features), self.data.task)

    def _side(self, encoder: Encoder, indices: Sequence[int], blocks: int) -> Examples:
        lower = LowerHalf(encoder, blocks)
        files = [self.data.files[index] for index in indices]
        states = hidden_states(lower, files, hidden_cache(self.cache, lower))
        return Examples(states, torch.from_numpy(self.data.targets[list(indices)]))


class Pixels:
    """Normalised pixels of files by number, decoded each time or once."""

    def __init__(self, encoder: Encoder, files: Sequence[Path], kept: bool) -> None:
        """Read the files now if they are to be kept."""
        self.rule, self.files = encoder.preprocessing, list(files)
        self.kept = [self._read(file) for file in files] if kept else None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        """Pixel values ``[count, 3, size, size]``."""
        numbers = range(len(self))[which] if isinstance(which, slice) else which.tolist()
        images = [self.kept[number] if self.kept else self._read(self.files[number]) for number in numbers]
        return torch.from_numpy(normalise(np.stack(images), self.rule))

    def _read(self, file: Path) -> np.ndarray:
        return preprocess(open_image(file), self.rule)


class Whole(nn.Module):
    """The unpatched encoder and a head behind it, as a plain loop would train them."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        """Join them."""
        super().__init__()
        self.encoder, self.tower, self.head = encoder, encoder.tower, head

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixel values to logits."""
        return self.head(self.encoder.features(pixel_values))


def epochs(subject: str, checkpoint: Path, photos: Path, cache: Path, blocks: int = 2) -> Iterator[str]:
    """Yield an epoch over hidden states against one through the whole encoder, in turns."""
    data = read_image_folder(photos)
    targets = torch.from_numpy(data.targets)
    some = slice(None, None, 5)

    def run_over(inputs: Callable[[Encoder, Sequence[Path]], object], whole: bool) -> Callable[[], Run]:
        encoder = Encoder.from_pretrained(str(checkpoint))
        upper, head = UpperHalf(encoder, blocks).requires_grad_(True), VLMtoMLP(encoder.dim, 256, len(data.labels))
        model = Whole(encoder, head) if whole else nn.Sequential(upper, head)
        updates = make_updates(upper, head, FinetuningOptions(blocks), TrainingOptions())
        objective = Objective.fitted(data.task, targets, len(data.labels), TrainingOptions())
        run = Run(model, objective, updates, Pace(ROUNDS, 32, 32, None, improvement))
        train = Examples(inputs(encoder, data.files), targets)
        validation = Examples(inputs(encoder, data.files[some]), targets[some])
        run.judge_start(train, validation)
        return partial(run.epoch, train, validation)

    def states(encoder: Encoder, files: Sequence[Path]) -> object:
        lower = LowerHalf(encoder, blocks)
        return hidden_states(lower, files, hidden_cache(cache, lower))

    runs = {
        "hidden states from the cache": run_over(states, whole=False),
        "whole encoder, pixels in memory": run_over(partial(Pixels, kept=True), whole=True),
        "whole encoder, files decoded each time": run_over(partial(Pixels, kept=False), whole=True),
    }
    times = np.array([[_seconds(epoch) for epoch in runs.values()] for _ in range(ROUNDS)])
    yield f"| {subject}, an epoch of `--unfreeze {blocks}` | seconds | x |"
    yield "| --- | --- | --- |"
    for name, column in zip(runs, times.T, strict=True):
        yield f"| {name} | {np.median(column):.2f} | {np.median(column / times[:, 0]):.1f} |"


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="bench/finetuning.py", description="Measure fine-tuning.")
    parser.add_argument("digits", type=Path, help="folder with one subfolder per digit")
    parser.add_argument("--part", choices=PARTS, help="print this part alone, and write nothing")
    parser.add_argument("--seeds", type=int, nargs="+", help="print --part distil of these splits alone")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="page to change")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if args.seeds:
            parts = [distilled(args.digits, Path(name), args.seeds)]
        else:
            parts = [PARTS[part](args.digits, Path(name)) for part in ([args.part] if args.part else PARTS)]
        lines = [line for part in parts for line in ("", *part)]
    print("\n".join(lines))
    if args.part is None and not args.seeds:
        page = args.out.read_text(encoding="utf-8")
        args.out.write_text(replaced_section(page, "Fine-tuning", [*preface(), *lines]), encoding="utf-8")


def preface() -> Iterator[str]:
    """Yield what the figures are of."""
    yield "Sign Language Digits, on the machine above. An epoch learns from all photos and judges them, and a fifth of"
    yield f"them again; the median of {ROUNDS} rounds in turns. The hidden states are computed once, before the first"
    yield f"epoch. Accuracies: mean and standard deviation over {len(SEEDS)} splits (60 % training, 20 % validation,"
    yield "20 % test); every fine-tuning starts from the frozen MLP of its split, and the best of"
    yield f"{EPOCHS} epochs counts."


def small_encoder(digits: Path, folder: Path) -> Iterator[str]:
    """Yield an epoch of tiny-clip over all photos."""
    yield from epochs("tiny-clip (4 blocks), 2,062 photos", ENCODER, digits, folder / "cache")


def large_encoder(digits: Path, folder: Path) -> Iterator[str]:
    """Yield an epoch of an encoder of the usual size, with random weights, over a few photos."""
    photos = few(digits, PHOTOS, folder / "photos")
    checkpoint = save_checkpoint(SUBJECTS["b32"], folder / "b32")
    yield from epochs(f"ViT-B/32 (12 blocks), {10 * PHOTOS} photos", checkpoint, photos, folder / "cache")


PARTS = {"small": small_encoder, "large": large_encoder, "accuracy": accuracies, "distil": distilled}

if __name__ == "__main__":
    main()
