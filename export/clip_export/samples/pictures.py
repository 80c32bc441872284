"""Pictures to prove an export on: photograph-like enough that a wrong resize or colour order changes the answer.

Drawn, because nobody's photographs may travel inside a model file; seeded, so that every export sees the same ones.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import ExifTags, Image, ImageDraw

ROTATED = 6
"""EXIF orientation of a phone held upright: the decoder has to turn the pixels by 90 degrees."""


def picture(height: int, width: int, seed: int) -> Image.Image:
    """Draw an RGB picture: a colour gradient, soft light, a few flat shapes with hard edges, and grain."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    corners = rng.uniform(20, 235, (3, 3))
    waves = np.sin(2 * np.pi * (rng.uniform(1, 4) * rows + rng.uniform(1, 4) * columns))[..., None]
    light = corners[0] * rows[..., None] + corners[1] * columns[..., None] + corners[2] * 0.3 + 25 * waves
    image = Image.fromarray(light.clip(0, 255).astype(np.uint8))
    _draw_shapes(image, rng)
    grain = rng.normal(0, 4, (height, width, 1))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def flat_picture(height: int, width: int, seed: int) -> Image.Image:
    """Draw an RGB picture of flat shapes on a plain ground, which PNG stores in few bytes."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), _colour(rng))
    _draw_shapes(image, rng)
    return image


def _draw_shapes(image: Image.Image, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(image)
    for _ in range(5):
        left, top = rng.uniform(0, 0.7) * image.width, rng.uniform(0, 0.7) * image.height
        box = (left, top, left + rng.uniform(0.1, 0.5) * image.width, top + rng.uniform(0.1, 0.5) * image.height)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape(box, fill=_colour(rng))


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def proof_files(size: int) -> list[bytes]:
    """Image files for the parity proof of a model of ``size`` pixels a side.

    Landscape, portrait, odd crop offsets, smaller than the model, exactly its size; PNG, and JPEG with a rotation in
    its EXIF data.
    """
    shapes = [
        (size * 15 // 7, size * 20 // 7),
        (size * 2 + 3, size + 8),
        (size, size),
        (size + 11, size * 3),
        (size // 3, size // 2 + 1),
    ]
    files = [_png(picture(height, width, seed)) for seed, (height, width) in enumerate(shapes)]
    return [*files, _rotated_jpeg(picture(size * 2, size * 3 + 7, len(shapes)))]


def golden_files(size: int) -> list[bytes]:
    """Small PNG files to keep in the model: its own size, larger and odd, smaller and upright, a strip."""
    shapes = [(size, size), (size * 5 // 4 + 3, size * 4 // 3 + 2), (size // 2 + 5, size // 3), (9, size // 2)]
    return [_png(flat_picture(height, width, seed)) for seed, (height, width) in enumerate(shapes)]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _rotated_jpeg(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = ROTATED
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, exif=exif)
    return buffer.getvalue()
