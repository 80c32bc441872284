"""A notebook that trained a head on the tiny encoder: its images, its features, and what it says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import ExifTags, Image
from torch import Tensor, nn

from clip_export.encoders.image import Encoder
from clip_export.proof.reference import pixel_values
from clip_export.samples.pictures import ROTATED, picture

LABELS = ("ant", "bee", "cow")
HIDDEN = 24


@dataclass(frozen=True)
class Notebook:
    """What lies about after a training.

    Attributes:
        encoder: the frozen encoder.
        paths: of its images.
        features: ``[n, dim]``, their pooled features.
        head: Linear -> ReLU -> Dropout -> Linear, at the scale of a trained one.
        file: its state_dict.
    """

    encoder: Encoder
    paths: list[Path]
    features: Tensor
    head: nn.Sequential
    file: Path

    def logits(self, features: Tensor, activation: Callable[[Tensor], Tensor] = torch.relu) -> Tensor:
        """What the head makes of other features, or with another activation."""
        with torch.inference_mode():
            return self.head[3](activation(self.head[0](features)))

    @property
    def answers(self) -> Tensor:
        """The head's logits for its images."""
        return self.logits(self.features)


def make_notebook(encoder: Encoder, folder: Path, count: int = 24) -> Notebook:
    """Images of several shapes, two of them rotated by EXIF, and a head that tells them apart."""
    paths = [_drawn(folder, number) for number in range(count)]
    features = features_of(encoder, [pixel_values(encoder, path.read_bytes()) for path in paths])
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        head = nn.Sequential(nn.Linear(encoder.dim, HIDDEN), nn.ReLU(), nn.Dropout(0.2), nn.Linear(HIDDEN, len(LABELS)))
        spread_out(head, features)
    torch.save(head.state_dict(), folder / "head.pt")
    return Notebook(encoder, paths, features, head.eval(), folder / "head.pt")


def spread_out(head: nn.Sequential, features: Tensor) -> None:
    """Give a head weights of trained scale: hidden units around their kink, logits of several units."""
    hidden = head[0](features)
    head[0].weight /= hidden.std(0)[:, None]
    head[0].bias -= hidden.mean(0)
    head[0].bias /= hidden.std(0)
    head.eval()
    logits = head(features)
    head[-1].weight *= 3 / logits.std(0)[:, None]
    head[-1].bias -= logits.mean(0)
    head[-1].bias *= 3 / logits.std(0)


def features_of(encoder: Encoder, pixels: list[Tensor]) -> Tensor:
    """Pooled features of ``pixel_values``, one image at a time."""
    with torch.inference_mode():
        return torch.cat([encoder.features(each) for each in pixels])


def _drawn(folder: Path, number: int) -> Path:
    image = picture(50 + 7 * (number % 5), 60 + 11 * (number % 7), number)
    path = folder / f"{number}.png"
    exif = Image.Exif()
    if number in {3, 8}:
        exif[ExifTags.Base.Orientation] = ROTATED
    image.save(path, exif=exif)
    return path
