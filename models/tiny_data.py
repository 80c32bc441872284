"""Training pictures and captions of tiny-clip as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, fields
from functools import partial

import numpy as np
import torch
from draw import draw, random_size
from PIL import Image
from scenes import BACKGROUNDS, COLOURS, COUNTS, POSITIONS, SHAPES, SIZES, TEXTURES, Scene, phrase, random_scene
from torch import Tensor
from transformers import CLIPTokenizerFast

SIDE = 64  # pixels along each edge of the model's input
CAPTIONS = 6  # captions prepared for each picture; each use picks one of them at random
ATTRIBUTES = tuple(field.name for field in fields(Scene))
VALUES: tuple[tuple[str | int, ...], ...] = (  # of each attribute, in the order of ATTRIBUTES
    SHAPES,
    tuple(COLOURS),
    tuple(SIZES),
    TEXTURES,
    tuple(COUNTS),
    tuple(POSITIONS),
    tuple(BACKGROUNDS),
)


@dataclass(frozen=True)
class Batch:
    """`n` pictures, each with one caption."""

    pictures: Tensor  # uint8 [n, 3, SIDE, SIDE]
    tokens: Tensor  # int64 [n, length], padded with the end token
    codes: Tensor  # int64 [n, attributes]: what the picture shows, as indices into VALUES
    mentions: Tensor  # bool [n, attributes]: which attributes the caption speaks of

    def matches(self) -> Tensor:
        """Return bool [n, n]: whether caption j is true of picture i."""
        return ((self.codes[:, None] == self.codes) | ~self.mentions).all(-1)


@dataclass(frozen=True)
class ShapeData:
    """`n` pictures, each with CAPTIONS captions; fields as in `Batch`, tokens and mentions [n, CAPTIONS, ...]."""

    pictures: Tensor
    tokens: Tensor
    codes: Tensor
    mentions: Tensor

    def sample(self, size: int) -> Batch:
        """Pick `size` pictures with one caption each at random; shift the pictures, and flip some, at random."""
        row, column = torch.randint(len(self.pictures), (size,)), torch.randint(CAPTIONS, (size,))
        codes = self.codes[row]
        sided = torch.tensor([name in ("on the left", "on the right") for name in POSITIONS])
        flip = (torch.rand(size) < 0.5) & ~sided[codes[:, ATTRIBUTES.index("position")]]
        return Batch(_moved(self.pictures[row], flip), self.tokens[row, column], codes, self.mentions[row, column])


def _moved(pictures: Tensor, flip: Tensor, most: int = 4) -> Tensor:
    """Shift each picture by up to `most` pixels, repeating its border, and mirror those where `flip` (bool [n])."""
    n = len(pictures)
    rows, columns = (torch.arange(SIDE) + torch.randint(-most, most + 1, (2, n, 1))).clamp(0, SIDE - 1)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    index = torch.arange(n).view(n, 1, 1)
    return pictures.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_scenes(n: int, seed: int) -> list[Scene]:
    """Return `n` random scenes."""
    rng = np.random.default_rng((seed, 0))
    return [random_scene(rng) for _ in range(n)]


def picture(job: tuple[int, Scene], seed: int) -> Image.Image:
    """Draw a (number, scene) in a random size; the details depend on the seed and the number only."""
    number, scene = job
    rng = np.random.default_rng((seed, 1, number))
    return draw(scene, random_size(rng), rng)


def _model_input(job: tuple[int, Scene], seed: int) -> np.ndarray:
    """Return a picture as uint8 [3, SIDE, SIDE]: shorter edge to SIDE, then the centre, as the processor does."""
    image = picture(job, seed)
    short = min(image.size)
    width, height = SIDE * image.width // short, SIDE * image.height // short
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE))).transpose(2, 0, 1)


def encode_scenes(scenes: Sequence[Scene]) -> Tensor:
    """Return int64 [n, attributes]: each field as its index into VALUES."""
    return torch.tensor([[v.index(x) for v, x in zip(VALUES, astuple(scene), strict=True)] for scene in scenes])


def make_data(n: int, seed: int, tokenizer: CLIPTokenizerFast, workers: int) -> ShapeData:
    """Draw `n` pictures in `workers` processes, and write and tokenize their captions."""
    scenes = random_scenes(n, seed)
    with ProcessPoolExecutor(workers) as pool:
        pictures = np.stack(list(pool.map(partial(_model_input, seed=seed), enumerate(scenes), chunksize=256)))
    rng = np.random.default_rng((seed, 2))
    phrases = [phrase(scene, rng) for scene in scenes for _ in range(CAPTIONS)]
    mentions = torch.tensor([[name in mentioned for name in ATTRIBUTES] for _, mentioned in phrases])
    tokens = tokenizer([text for text, _ in phrases], padding=True, return_tensors="pt")["input_ids"]
    return ShapeData(
        pictures=torch.from_numpy(pictures),
        tokens=tokens.view(n, CAPTIONS, -1),
        codes=encode_scenes(scenes),
        mentions=mentions.view(n, CAPTIONS, -1),
    )
