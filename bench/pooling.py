"""``bench/pooling.py FOLDER``: a learnt pooling of the tokens after a block of tiny-clip, against class+mean.

One query, trained together with a linear head, weighs the patches' tokens. Images in label folders; five random splits
into 60 % to train on, 20 % to choose the epoch by and 20 % to judge by.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from clip_export.encoders.image import Encoder
from clip_toolkit import preprocess
from clip_toolkit.data.image_folder import read_image_folder
from clip_toolkit.images.preprocess import normalise

ROOT = Path(__file__).parents[1]
SPLITS, EPOCHS, BATCH, RATE = 5, 120, 64, 3e-3


class ClassAndMean(nn.Module):
    """Tokens ``[batch, 1 + patches, width]`` to ``class+mean``."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool."""
        return _beside_class(tokens, tokens[:, 1:].mean(1))


class ClassAndAttention(nn.Module):
    """Likewise, with what a learnt query reads of the patches in place of their mean."""

    def __init__(self, width: int) -> None:
        """Begin with equal weights, which is the mean."""
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool."""
        patches = tokens[:, 1:]
        weights = (patches @ self.query / patches.shape[-1] ** 0.5).softmax(1)
        return _beside_class(tokens, (weights[..., None] * patches).sum(1))


def _beside_class(tokens: Tensor, read: Tensor) -> Tensor:
    return torch.cat([tokens[:, 0], functional.layer_norm(read, read.shape[-1:])], -1)


POOLINGS: dict[str, Callable[[int], nn.Module]] = {
    "class+mean": lambda _: ClassAndMean(),
    "class+attention": ClassAndAttention,
}


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(prog="bench/pooling.py", description="Measure learnt pooling.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--depth", type=int, default=2, help="blocks (default: %(default)s)")
    args = parser.parse_args()
    dataset = read_image_folder(args.folder)
    tokens, targets = _tokens(dataset.files, args.depth), torch.tensor(dataset.targets)
    print(f"after block {args.depth}; {len(targets)} images, {SPLITS} splits\n\n| | right | of each split |")
    print("| --- | --- | --- |")
    for name, make in POOLINGS.items():
        shares = [_trained(make(tokens.shape[-1]), tokens, targets, seed) for seed in range(SPLITS)]
        each = ", ".join(f"{share:.1%}" for share in shares)
        print(f"| {name} | {statistics.mean(shares):.1%} | {each} |", flush=True)


def _tokens(files: list[Path], depth: int) -> Tensor:
    """Return the tokens after a block, normalised without weights, as a feature of a depth is."""
    encoder = Encoder.from_pretrained(str(ROOT / "models" / "tiny-clip"))
    found: list[Tensor] = []
    encoder.tower.encoder.layers[depth - 1].register_forward_hook(lambda _m, _i, out: found.append(_first(out)))
    for start in range(0, len(files), 64):
        images = [
            np.asarray(preprocess(Image.open(file).convert("RGB"), encoder.preprocessing))
            for file in files[start : start + 64]
        ]
        with torch.inference_mode():
            encoder.tower(pixel_values=torch.from_numpy(normalise(np.stack(images), encoder.preprocessing)))
    tokens = torch.cat(found).clone()
    return functional.layer_norm(tokens, tokens.shape[-1:])


def _first(output: object) -> Tensor:
    return output[0] if isinstance(output, tuple) else output  # type: ignore[return-value]


def _trained(pooling: nn.Module, tokens: Tensor, targets: Tensor, seed: int) -> float:
    """Return the share of right test images at the epoch that does best on the validation images."""
    torch.manual_seed(seed)
    order = torch.randperm(len(targets))
    fifth = len(targets) // 5
    test, validation, train = order[:fifth], order[fifth : 2 * fifth], order[2 * fifth :]
    width = pooling(tokens[:2]).shape[-1]
    model = nn.Sequential(pooling, nn.Linear(width, int(targets.max()) + 1))
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-2)
    best, share = -1.0, 0.0
    for _ in range(EPOCHS):
        for rows in train[torch.randperm(len(train))].split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(model(tokens[rows]), targets[rows]).backward()
            optimizer.step()
        right = [_right(model, tokens[rows], targets[rows]) for rows in (validation, test)]
        if right[0] > best:
            best, share = right
    return share


@torch.no_grad()
def _right(model: nn.Module, tokens: Tensor, targets: Tensor) -> float:
    return float((model(tokens).argmax(1) == targets).float().mean())


if __name__ == "__main__":
    main()
