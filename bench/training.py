"""``bench/training.py DIGITS``: what training costs and gives; rewrites its section of docs/benchmarks.md.

DIGITS is the ``Dataset`` folder of the Sign Language Digits Dataset (github.com/ardamavi/Sign-Language-Digits-Dataset).
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sections import replaced_section

from clip_export.data.splits import split_dataset
from clip_export.encoders.image import Encoder
from clip_export.features.cache import FeatureCache
from clip_export.features.images import image_features
from clip_export.heads.files import load_head
from clip_export.training.epochs import Examples
from clip_export.training.judging.baseline import fit_baseline
from clip_export.training.judging.decisions import plain_score
from clip_export.training.loop import train_head
from clip_export.training.objective import score
from clip_export.training.options import TrainingOptions
from clip_export.training.preparation import examples
from clip_toolkit.data.image_folder import read_image_folder
from encoders import SUBJECTS, save_checkpoint

ROOT = Path(__file__).parents[1]
ENCODER = ROOT / "models" / "tiny-clip"
SEEDS = range(5)
EPOCHS = 20
PHOTOS = 40  # of each class, for the large encoder: the course's loop would take half an hour for all


def heads_on_digits(digits: Path, cache: Path) -> Iterator[str]:
    """Test accuracy of three heads over several splits, and the seconds that training one takes."""
    encoder = Encoder.from_pretrained(str(ENCODER))
    data = read_image_folder(digits)
    features = image_features(encoder, data.files, cache=FeatureCache(cache, encoder))
    data = data.subset(features.kept)
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in SEEDS:
        split = split_dataset(data, features.contents, 0.2, 0.2, seed)
        train, validation, test = (examples(features, data, side) for side in split)
        plain = TrainingOptions(seed=seed, keep_last=True)
        tuned = replace(
            TrainingOptions(seed=seed),
            optimizer="adamw",
            learning_rate=1e-3,
            weight_decay=1e-2,
            epochs=200,
            patience=15,
            standardise=True,
        )
        for name, options in (
            ("MLP 256, the course's options (Adam 1e-4, 100 epochs)", plain),
            ("MLP 256, AdamW 1e-3, standardised, early stopping", tuned),
            ("linear, AdamW 1e-3, standardised, early stopping", replace(tuned, hidden_dim=())),
        ):
            start = time.perf_counter()
            head = train_head(train, validation, len(data.labels), options).head
            taken = time.perf_counter() - start
            with torch.no_grad():
                found.setdefault(name, []).append((score(head(test.features), test.targets, data.task), taken))
        start = time.perf_counter()
        accuracy = plain_score(fit_baseline(train, data.task), test, data.task)
        found.setdefault("logistic regression (scikit-learn)", []).append((accuracy, time.perf_counter() - start))
    yield f"| head on tiny-clip, {len(data.files)} photos, 10 classes | test accuracy | seconds |"
    yield "| --- | --- | --- |"
    for name, rows in found.items():
        accuracies, seconds = np.array(rows).T
        yield f"| {name} | {accuracies.mean():.1%} +- {accuracies.std(ddof=1):.1%} | {np.median(seconds):.1f} |"


def against_the_course(subject: str, encoder: Path, photos: Path, folder: Path) -> Iterator[str]:
    """Whole processes: the course's loop, ours with an empty cache, ours again."""
    folder.mkdir(parents=True, exist_ok=True)
    common = [str(photos), "--encoder", str(encoder), "--epochs", str(EPOCHS), "--lr", "1e-3"]
    ours = [
        "-m",
        "clip_export.commands.train",
        *common,
        "--keep-last",
        "--cache",
        str(folder / "cache"),
        "--out",
        str(folder / "ours.pt"),
    ]
    course = [str(ROOT / "examples" / "course_loop.py"), *common, "--out", str(folder / "course.pt")]
    runs = (("the course's loop", course), ("clip-train, empty cache", ours), ("clip-train again", ours))
    rows = []
    for name, command in runs:
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
        rows.append((name, time.perf_counter() - start, re.search(r"validation accuracy ([\d.]+%)", done.stdout)[1]))
    yield f"| {subject}, {EPOCHS} epochs, whole process | seconds | x | validation accuracy |"
    yield "| --- | --- | --- | --- |"
    for name, seconds, accuracy in rows:
        yield f"| {name} | {seconds:.1f} | {rows[0][1] / seconds:.1f} | {accuracy} |"
    yield ""
    yield f"The two heads agree on {_agreement(encoder, photos, folder):.1%} of all photos."


def _agreement(encoder: Path, photos: Path, folder: Path) -> float:
    used = Encoder.from_pretrained(str(encoder))
    values = image_features(used, read_image_folder(photos).files, cache=FeatureCache(folder / "cache", used)).values
    with torch.no_grad():
        said = [load_head(folder / f"{name}.pt").module(values).argmax(1) for name in ("course", "ours")]
    return float((said[0] == said[1]).float().mean())


def few(digits: Path, each: int, folder: Path) -> Path:
    """Return a folder with the first ``each`` photos of every class."""
    for photos in sorted(digits.iterdir()):
        (folder / photos.name).mkdir(parents=True)
        for path in sorted(photos.iterdir())[:each]:
            (folder / photos.name / path.name).symlink_to(path.resolve())
    return folder


def many_features() -> Iterator[str]:
    """Yield an epoch over 100,000 features, and whether memory grows."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(100_000) % 10
    data = Examples(torch.randn(100_000, 768, generator=generator) + torch.eye(10, 768)[targets], targets)
    seconds, memory = [time.perf_counter()], [_resident()]

    def noted(_: object) -> None:
        seconds.append(time.perf_counter())
        memory.append(_resident())

    train_head(data, Examples(data.features[:1000], targets[:1000]), 10, TrainingOptions(epochs=5), noted)
    yield (
        "100,000 features of 768 numbers (293 MiB), 10 classes, default head and options: "
        f"{np.median(np.diff(seconds)):.1f} s an epoch. The process held {memory[0]:.0f} MiB before, "
        f"{memory[1]:.0f} MiB after one epoch and {memory[-1]:.0f} MiB after five."
    )


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="bench/training.py", description="Measure training.")
    parser.add_argument("digits", type=Path, help="folder with one subfolder per digit")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="page to change")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = list(against_the_course("tiny-clip, all photos", ENCODER, args.digits, folder / "tiny"))
        heads = list(heads_on_digits(args.digits, folder / "tiny" / "cache"))
        photos = few(args.digits, PHOTOS, folder / "photos")
        checkpoint = save_checkpoint(SUBJECTS["b32"], folder / "b32")
        large = list(against_the_course(f"ViT-B/32, {10 * PHOTOS} photos", checkpoint, photos, folder / "large"))
    lines = [
        "Sign Language Digits, tiny-clip frozen, on the machine above. Accuracies: mean and standard deviation over",
        f"{len(SEEDS)} splits (60 % training, 20 % validation, 20 % test, stratified); tiny-clip has only ever seen",
        "drawn shapes. Seconds: training alone, the features being cached.",
        "",
        *heads,
        "",
        *small,
        "",
        "The same with the course's encoder, its shape true and its weights random: accuracy is chance, seconds count.",
        "",
        *large,
        "",
        *many_features(),
    ]
    print("\n".join(lines))
    args.out.write_text(replaced_section(args.out.read_text(encoding="utf-8"), "Training", lines), encoding="utf-8")


if __name__ == "__main__":
    main()
