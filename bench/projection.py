"""``bench/projection.py``: a few pictures of each label for the visual projection, beside those for a head.

ProLIP (https://arxiv.org/abs/2410.05270) trains CLIP's visual projection on cached pooled features, held to what it was
by lambda times the squared distance, lambda = 1 / shots, without validation images: Adam, 300 steps over all of them.
Tip-Adapter (https://arxiv.org/abs/2111.03930) trains nothing: alpha = 1, beta = 5.5. Tasks and shots are those of
few_shot.py.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from few_shot import DRAWS, ENCODER, OPTIONS, SEED, SHOTS, TASKS, accuracy, drawn_features, drawn_shots, random_scenes
from torch.nn import functional
from transformers import CLIPModel

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_export.heads.zero_shot import ZeroShot, zero_shot
from clip_export.training.epochs import Examples
from clip_export.training.few_shot import train_from_words

POOL, TEST = 2400, 1000
RATES = (1e-5, 1e-4, 1e-3)
STEPS, ALPHA, BETA = 300, 1.0, 5.5


def logits_of(words: ZeroShot, projected: torch.Tensor) -> torch.Tensor:
    """Compare projected features with the words."""
    return functional.normalize(projected, dim=-1) @ words.directions.T * words.scale


def prolip(words: ZeroShot, start: torch.Tensor, train: Examples, shots: int, rate: float) -> torch.Tensor:
    """Train the projection ``[dim, width]`` on pooled features."""
    projection = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([projection], rate)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = functional.cross_entropy(logits_of(words, train.features @ projection.T), train.targets)
        (loss + (projection - start).square().sum() / shots).backward()
        optimizer.step()
    return projection.detach()


def tip_adapter(words: ZeroShot, train: Examples, projected: torch.Tensor) -> torch.Tensor:
    """Add what the nearest examples say to what the words say; all features are projected."""
    keys, asked = (functional.normalize(each, dim=-1) for each in (train.features, projected))
    cached = torch.exp(-BETA * (1 - asked @ keys.T)) @ functional.one_hot(train.targets, len(words.directions)).float()
    return logits_of(words, projected) + ALPHA * cached


def share(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the share of right decisions."""
    return float((logits.argmax(1) == targets).float().mean())


def compared(
    words: ZeroShot, start: torch.Tensor, pool: Examples, test: Examples, shots: int, *, seed: int
) -> list[float]:
    """Return accuracies after one draw: ours, Tip-Adapter, ProLIP at each rate."""
    train, few = drawn_shots(pool, shots, seed)
    seen, chosen, asked = (Examples(each.features @ start.T, each.targets) for each in (train, few, test))
    ours = train_from_words(words, seen, chosen, OPTIONS)[0].training.head
    tip = share(tip_adapter(words, seen, asked.features), test.targets)
    projections = [prolip(words, start, train, shots, rate) for rate in RATES]
    tuned = [share(logits_of(words, test.features @ each.T), test.targets) for each in projections]
    return [accuracy(ours, asked), tip, *tuned]


def main() -> None:
    """Print a table in Markdown for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=tuple(TASKS))
    parser.add_argument("--shots", nargs="+", type=int, choices=SHOTS, default=SHOTS)
    options = parser.parse_args()
    scenes = random_scenes(POOL + TEST, SEED)
    features = drawn_features(Encoder.from_pretrained(str(ENCODER), feature="pooled"), scenes)
    start = CLIPModel.from_pretrained(ENCODER).visual_projection.weight.detach()
    tower = TextEncoder.from_pretrained(str(ENCODER))
    for task in options.tasks:
        names = [TASKS[task](scene) for scene in scenes]
        labels = sorted(set(names))
        targets = torch.tensor([labels.index(name) for name in names])
        pool, test = (
            Examples(*side) for side in zip(features.split((POOL, TEST)), targets.split((POOL, TEST)), strict=True)
        )
        words = zero_shot(tower, labels)
        alone = share(logits_of(words, test.features @ start.T), test.targets)
        rates = " | ".join(f"ProLIP {rate:g}" for rate in RATES)
        print(f"| {task}: {len(labels)} labels, words alone {alone:.1%} | --init zero-shot | Tip-Adapter | {rates} |")
        print(f"| --- | --- | --- |{' --- |' * len(RATES)}")
        for shots in options.shots:
            found = np.mean([compared(words, start, pool, test, shots, seed=seed) for seed in range(DRAWS)], axis=0)
            print(f"| {shots} | {' | '.join(f'{mean:.1%}' for mean in found)} |", flush=True)


if __name__ == "__main__":
    main()
