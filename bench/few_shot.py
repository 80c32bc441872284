"""``bench/few_shot.py``: words with a few pictures of each, or none; rewrites its section of docs/benchmarks.md.

Drawn scenes of models/scenes.py behind tiny-clip, whose text tower knows some of the words used here, half knows
others, and has never seen the rest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sections import replaced_section

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_export.heads.zero_shot import ZeroShot, linear_head, zero_shot
from clip_export.training.epochs import Examples
from clip_export.training.few_shot import calibrated_loss, train_from_words
from clip_export.training.objective import score
from clip_export.training.options import TrainingOptions
from clip_toolkit.spec.tasks import SINGLE_LABEL

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "models"))

from scenes import SHAPES, Scene  # noqa: E402  (models is no package)
from tiny_data import picture, random_scenes  # noqa: E402

ENCODER = ROOT / "models" / "tiny-clip"
SHOTS = (1, 2, 4, 8, 16)
DRAWS = 3
POOL, MANY, TEST = 3600, 400, 2000  # scenes to draw shots from, to choose by, to judge by
SEED = 5_000_011  # of scenes of neither tiny-clip's training nor its tests
OPTIONS = TrainingOptions(learning_rate=1e-2)  # clip-train's own with --init zero-shot

GERMAN = ("Kreis", "Quadrat", "Dreieck", "Stern", "Kreuz", "Ring", "Herz", "Mond", "Pfeil", "Raute")
TASKS: dict[str, Callable[[Scene], str]] = {
    "texture and shape": lambda scene: f"{scene.texture} {scene.shape}",
    "shape and position": lambda scene: f"{scene.shape} {scene.position}",
    "shape, in German": lambda scene: GERMAN[SHAPES.index(scene.shape)],
    "background": lambda scene: f"{scene.background} background",
}


class Data(NamedTuple):
    """Examples to draw shots from, many to choose by, and those to judge by."""

    pool: Examples
    many: Examples
    test: Examples


def drawn_features(encoder: Encoder, scenes: list[Scene]) -> torch.Tensor:
    """Projected features, float32 ``[scenes, dim]``."""
    rows = []
    for start in range(0, len(scenes), 200):
        pictures = [picture((number, scenes[number]), SEED) for number in range(start, start + 200)]
        values = encoder.processor(images=pictures, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            rows.append(encoder.features(values))
    return torch.cat(rows)


def accuracies(words: ZeroShot, data: Data, shots: int, seed: int) -> list[float]:
    """Test accuracy after one draw of shots: from random weights, from the words, chosen by as many, by many."""
    train, few = drawn_shots(data.pool, shots, seed)
    trained = [attempt.training for attempt in train_from_words(words, train, few, OPTIONS)]
    random = next(each for each in trained if each.start == "random")
    from_words = next(each for each in trained if each.start != "random")
    by_many = min(trained, key=lambda each: calibrated_loss(each.head, data.many, SINGLE_LABEL))
    return [accuracy(each.head, data.test) for each in (random, from_words, trained[0], by_many)]


def drawn_shots(pool: Examples, shots: int, seed: int) -> tuple[Examples, Examples]:
    """As many examples of each label to choose by as to learn from."""
    order = torch.randperm(len(pool.targets), generator=torch.Generator().manual_seed(seed))
    rows = [order[pool.targets[order] == label][: 2 * shots] for label in pool.targets.unique()]
    sides = torch.cat([row[:shots] for row in rows]), torch.cat([row[shots:] for row in rows])
    return tuple(Examples(pool.features[side], pool.targets[side]) for side in sides)


@torch.no_grad()
def accuracy(head: torch.nn.Module, examples: Examples) -> float:
    """Share of right decisions."""
    return score(head(examples.features), examples.targets, SINGLE_LABEL)


def table(task: str, tower: TextEncoder, scenes: list[Scene], features: torch.Tensor) -> Iterator[str]:
    """Yield a row for each number of shots: means over the draws; the worst of each choice goes to stderr."""
    names = [TASKS[task](scene) for scene in scenes]
    labels = sorted(set(names))
    targets = torch.tensor([labels.index(name) for name in names])
    sides = zip(features.split((POOL, MANY, TEST)), targets.split((POOL, MANY, TEST)), strict=True)
    data = Data(*(Examples(*side) for side in sides))
    words = zero_shot(tower, labels)
    alone = accuracy(linear_head(words.directions * words.scale, torch.zeros(len(labels))), data.test)
    title = f"{task}: {len(labels)} labels, words alone {alone:.1%}"
    yield f"| {title} | random start | zero-shot start | chosen by as many | chosen by {MANY} |"
    yield "| --- | --- | --- | --- | --- |"
    for shots in SHOTS:
        found = np.array([accuracies(words, data, shots, seed) for seed in range(DRAWS)])
        yield f"| {shots} | " + " | ".join(f"{mean:.1%}" for mean in found.mean(0)) + " |"
        worst = (found[:, 2:] - found[:, :1]).min(0)
        print(f"{task}, {shots} shots: choices at worst {worst[0]:+.2%}, {worst[1]:+.2%} from random", file=sys.stderr)
    yield ""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="bench/few_shot.py", description="Measure the zero-shot start.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="page to change")
    args = parser.parse_args()
    scenes = random_scenes(POOL + MANY + TEST, SEED)
    features = drawn_features(Encoder.from_pretrained(str(ENCODER), feature="projected"), scenes)
    tower = TextEncoder.from_pretrained(str(ENCODER))
    lines = [
        f"Accuracy on {TEST:,} drawn pictures after a few of each label; mean of {DRAWS} draws. A linear head on",
        "tiny-clip's normalised projected feature, Adam 1e-2, 100 epochs. *Zero-shot start*: the words, best pull.",
        "*Chosen*: what `--init zero-shot` gives, that or the random start by validation loss, with as many pictures",
        f"again of each label to choose by, or {MANY} in all.",
        "",
        *(line for task in TASKS for line in table(task, tower, scenes, features)),
    ]
    print("\n".join(lines))
    args.out.write_text(replaced_section(args.out.read_text(encoding="utf-8"), "Few shots", lines), encoding="utf-8")


if __name__ == "__main__":
    main()
