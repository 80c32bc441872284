"""``bench/projection.py``: a few pictures of each label for the visual projection, beside those for a head.

ProLIP trains CLIP's visual projection on cached pooled features, as clip_export.training.projection does: at each rate
without validation images, as the paper has it; and chosen, as `--train-projection` does, from all starts.
Tip-Adapter (https://arxiv.org/abs/2111.03930) trains nothing: alpha = 1, beta = 5.5. Tasks and shots are those of
few_shot.py.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from few_shot import DRAWS, ENCODER, OPTIONS, SEED, SHOTS, TASKS, accuracy, drawn_features, drawn_shots, random_scenes
from torch import nn
from torch.nn import functional

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_export.heads.zero_shot import ZeroShot, zero_shot
from clip_export.training.epochs import Examples
from clip_export.training.few_shot import train_from_words
from clip_export.training.projection import RATE, ProjectionAttempt, before_projection, project, train_projection

POOL, TEST = 2400, 1000
RATES = (1e-5, 1e-4, 1e-3)
ALPHA, BETA = 1.0, 5.5


def logits_of(words: ZeroShot, projected: torch.Tensor) -> torch.Tensor:
    """Compare projected features with the words."""
    return functional.normalize(projected, dim=-1) @ words.directions.T * words.scale


def tip_adapter(words: ZeroShot, train: Examples, projected: torch.Tensor) -> torch.Tensor:
    """Add what the nearest examples say to what the words say; all features are projected."""
    keys, asked = (functional.normalize(each, dim=-1) for each in (train.features, projected))
    cached = torch.exp(-BETA * (1 - asked @ keys.T)) @ functional.one_hot(train.targets, len(words.directions)).float()
    return logits_of(words, projected) + ALPHA * cached


def share(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the share of right decisions."""
    return float((logits.argmax(1) == targets).float().mean())


def compared(
    words: ZeroShot, start: nn.Linear, pool: Examples, test: Examples, shots: int, *, seed: int
) -> list[float]:
    """Return accuracies after one draw: ours, Tip-Adapter, ProLIP at each rate, and ours with ProLIP as a start."""
    train, few = drawn_shots(pool, shots, seed)
    seen, chosen_by, asked = (project(start, each) for each in (train, few, test))
    ours = train_from_words(words, seen, chosen_by, OPTIONS)[0]
    tip = share(tip_adapter(words, seen, asked.features), test.targets)
    tuned = {rate: train_projection(words, start, train, few, OPTIONS, shots=shots, rate=rate) for rate in RATES}
    learnt = {rate: reached(each, test) for rate, each in tuned.items()}
    head = accuracy(ours.training.head, asked)
    chosen = learnt[RATE] if tuned[RATE].attempt.loss < ours.loss else head
    return [head, tip, *learnt.values(), chosen]


def reached(tried: ProjectionAttempt, test: Examples) -> float:
    """Return the accuracy of the words behind a trained projection."""
    return accuracy(tried.attempt.training.head, project(tried.projection, test))


def main() -> None:
    """Print a table in Markdown for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=tuple(TASKS))
    parser.add_argument("--shots", nargs="+", type=int, choices=SHOTS, default=SHOTS)
    options = parser.parse_args()
    scenes = random_scenes(POOL + TEST, SEED)
    encoder = Encoder.from_pretrained(str(ENCODER), feature="projected")
    features, start = drawn_features(before_projection(encoder), scenes), encoder.projection
    tower = TextEncoder.from_pretrained(str(ENCODER))
    for task in options.tasks:
        names = [TASKS[task](scene) for scene in scenes]
        labels = sorted(set(names))
        targets = torch.tensor([labels.index(name) for name in names])
        pool, test = (
            Examples(*side) for side in zip(features.split((POOL, TEST)), targets.split((POOL, TEST)), strict=True)
        )
        words = zero_shot(tower, labels)
        alone = share(logits_of(words, start(test.features)), test.targets)
        columns = ("--init zero-shot", "Tip-Adapter", *(f"ProLIP {rate:g}" for rate in RATES), "--train-projection")
        print(f"| {task}: {len(labels)} labels, words alone {alone:.1%} | {' | '.join(columns)} |")
        print(f"| --- |{' --- |' * len(columns)}")
        for shots in options.shots:
            found = np.mean([compared(words, start, pool, test, shots, seed=seed) for seed in range(DRAWS)], axis=0)
            print(f"| {shots} | {' | '.join(f'{mean:.1%}' for mean in found)} |", flush=True)


if __name__ == "__main__":
    main()
