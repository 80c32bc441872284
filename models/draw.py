"""Draw captioned pictures of coloured shapes: the data of tiny-clip and a demo's folder of labelled pictures.

A picture is described by a `Scene`, painted by `draw` and told in words by `caption`. The objects always lie
inside the centred square of the picture, so that "resize the shorter edge, then crop the centre" keeps them.
Usage: `python models/draw.py shapes --classes circle square star --per-class 60 --seed 0`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scenes import COLOURS, POSITIONS, SHAPES, SIZES, Scene, caption, random_scene

__all__ = ["COLOURS", "SHAPES", "Scene", "caption", "draw", "labelled_pictures", "random_scene", "random_size"]

SUPERSAMPLING = 2  # paint this many times larger, then shrink: smooth edges
SMALLEST_SIDE = 32  # pixels; below this the shapes cannot be told apart
CLASSES = {"shape": SHAPES, "colour": tuple(COLOURS)}  # what a labelled folder can be sorted by
SUFFIXES = ("jpg", "jpg", "jpg", "png")  # of its files, in turn

Colour = tuple[int, int, int]


def _circle(radius: float = 1.0) -> np.ndarray:
    """Return a closed circle: its last point is its first, so that a ring can be drawn as one line in and out."""
    angle = np.linspace(0, 2 * np.pi, 49)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def _corners(n: int, *radii: float) -> np.ndarray:
    """Return `n` corners around the middle, the first one on top, at the given radii in turn."""
    angle = 2 * np.pi * np.arange(n) / n - np.pi / 2
    points: np.ndarray = np.stack([np.cos(angle), np.sin(angle)], 1) * np.resize(radii, n)[:, None]
    return points


def _cross(arm: float = 0.34) -> np.ndarray:
    quarter = np.array([(arm, -1), (arm, -arm), (1, -arm)])
    turn = np.array([(0, 1), (-1, 0)])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


def _heart() -> np.ndarray:
    """Return a heart: two humped rows of points that meet in a dip above and a tip below."""
    x = np.linspace(-1, 1, 41)
    top = -0.55 * np.sqrt(np.clip(1 - (2 * np.abs(x) - 1) ** 2, 0, None)) - 0.35
    bottom = 0.95 - 1.3 * np.abs(x) ** 1.4
    return np.concatenate([np.stack([x, top], 1), np.stack([x, bottom], 1)[::-1]])


def _crescent() -> np.ndarray:
    """Return a disc without the part that a second disc, further right, covers."""
    half_rim = np.linspace(np.pi / 3, np.pi, 17)
    rim = np.stack([np.cos(half_rim), np.sin(half_rim)], 1)
    centre = 0.8
    horn = np.arctan2(rim[0, 1], rim[0, 0] - centre)
    radius = np.hypot(rim[0, 1], rim[0, 0] - centre)
    half_bite = np.linspace(np.pi, horn, 17)
    bite = np.stack([centre + radius * np.cos(half_bite), radius * np.sin(half_bite)], 1)
    half = np.concatenate([rim[::-1], bite[::-1]])
    half[:, 0] += 0.25
    return np.concatenate([half, half[::-1] * (1, -1)])


OUTLINES: dict[str, np.ndarray] = {  # float64 [corners, 2]: x to the right and y down, within about -1..1
    "circle": _circle(),
    "square": 0.86 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
    "triangle": _corners(3, 1.12) + np.array([0, 0.22]),
    "star": _corners(10, 1.08, 0.44),
    "cross": _cross(),
    "ring": np.concatenate([_circle(), _circle(0.55)[::-1]]),
    "heart": _heart(),
    "crescent": _crescent(),
    "arrow": np.array([(-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3)]),
    "diamond": np.array([(0, -1.05), (0.72, 0), (0, 1.05), (-0.72, 0)]),
}


def draw(scene: Scene, size: int | tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Paint a scene as an RGB picture (uint8) of `size` pixels: a side, or (width, height)."""
    return draw_with_mask(scene, size, rng)[0]


def draw_with_mask(
    scene: Scene, size: int | tuple[int, int], rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """Paint a scene as `draw` does; return also where its objects are (mode L, 0 or 255, larger than the picture)."""
    width, height = (size, size) if isinstance(size, int) else size
    large = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    lightest = 215 if scene.colour in ("yellow", "pink") else 245
    base = rng.uniform(110, lightest) + rng.uniform(-14, 14, 3)
    colour = (np.array(COLOURS[scene.colour]) + rng.uniform(-14, 14, 3)) * rng.uniform(0.9, 1.08)
    picture = _background(scene.background, base, large, rng)
    mask, span = _mask(scene, large, rng)
    picture.paste(_paint(scene, colour, mask, span, rng), mask=mask)
    return _spoil(picture.resize((width, height), Image.Resampling.BOX), rng), mask


def random_size(rng: np.random.Generator, side: int = 96) -> tuple[int, int]:
    """Return a random (width, height) in pixels: the shorter edge about `side`, often not square, often odd."""
    short = max(SMALLEST_SIDE, int(side * rng.uniform(0.7, 1.4)))
    long = short if rng.random() < 0.4 else int(short * rng.uniform(1, 1.6))
    return (long, short) if rng.random() < 0.5 else (short, long)


def _background(kind: str, base: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Paint a greyish background around the colour `base` (float64 [3], 0..255)."""
    width, height = size
    pixels = np.broadcast_to(base, (height, width, 3))
    if kind == "gradient":
        x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
        angle = rng.uniform(0, 2 * np.pi)
        pixels = pixels + (45 * (x * np.cos(angle) + y * np.sin(angle)))[:, :, None]
    if kind == "noise":
        grain = np.clip(base + rng.normal(0, 24, (24, 24, 3)), 0, 255).astype(np.uint8)
        return Image.fromarray(grain).resize(size, Image.Resampling.NEAREST)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if kind == "clutter":
        _scatter(image, base, rng)
    return image


def _scatter(image: Image.Image, base: np.ndarray, rng: np.random.Generator) -> None:
    """Strew small greyish quadrilaterals over a background."""
    pen, side = ImageDraw.Draw(image), min(image.size)
    for _ in range(rng.integers(8, 16)):
        corners = rng.uniform(-0.09, 0.09, (4, 2)) * side + rng.uniform(0, 1, 2) * image.size
        pen.polygon(_points(corners), fill=_rgb(base + rng.uniform(-60, 60)))


def _place(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return float64 [count, 3]: x, y of each object's middle and its radius, all in half sides of the square."""
    if scene.count == 1:
        radius = SIZES[scene.size] * rng.uniform(0.95, 1.05)
        middle = np.array(POSITIONS[scene.position]) + rng.uniform(-0.06, 0.06, 2)
        return np.array([[*np.clip(middle, radius - 1, 1 - radius), radius]])
    angle = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(scene.count) / scene.count
    radius = SIZES[scene.size] * rng.uniform(0.90, 0.98)
    return np.stack([0.52 * np.cos(angle), 0.52 * np.sin(angle), np.full(scene.count, radius)], 1)


def _mask(scene: Scene, size: tuple[int, int], rng: np.random.Generator) -> tuple[Image.Image, float]:
    """Return the objects' mask (mode L, 0 or 255), each turned by up to 15 degrees, and their span in pixels."""
    mask, half = Image.new("L", size), min(size) / 2
    pen, places = ImageDraw.Draw(mask), _place(scene, rng)
    for x, y, radius in places:
        turn = rng.uniform(-np.pi / 12, np.pi / 12)
        matrix = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
        corners = (OUTLINES[scene.shape] @ matrix * radius + (x, y)) * half + np.array(size) / 2
        pen.polygon(_points(corners), fill=255)
    return mask, 2 * half * float(places[0, 2])


def _paint(scene: Scene, colour: np.ndarray, mask: Image.Image, span: float, rng: np.random.Generator) -> Image.Image:
    """Return the picture that shows through the objects' mask (mode L): their colour with the scene's texture."""
    paint, lighter = Image.new("RGB", mask.size, _rgb(colour)), _rgb(colour + 0.4 * (255 - colour))
    pen, step = ImageDraw.Draw(paint), span * rng.uniform(0.22, 0.28)
    if scene.texture == "striped":
        lean = rng.uniform(-1, 1) * mask.height
        for x in np.arange(-mask.height, mask.width + mask.height, step):
            pen.line([(x, 0), (x + lean, mask.height)], lighter, max(1, round(step * 0.45)))
    if scene.texture == "dotted":
        for x in np.arange(rng.uniform(0, step), mask.width, step):
            for y in np.arange(rng.uniform(0, step), mask.height, step):
                pen.circle((x, y), step * 0.28, lighter)
    if scene.texture == "outlined":
        edge = (235, 235, 235) if scene.colour == "black" else _rgb(colour * 0.4)
        inside = mask.filter(ImageFilter.MinFilter(2 * max(1, round(span * 0.045)) + 1))
        return Image.composite(paint, Image.new("RGB", mask.size, edge), inside)
    return paint


def _spoil(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur and add noise as a camera would."""
    soft = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.012) * min(image.size)))
    grain = rng.normal(0, rng.uniform(0, 12), (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8))


def _points(corners: np.ndarray) -> list[tuple[float, float]]:
    return [(x, y) for x, y in corners.tolist()]


def _rgb(colour: np.ndarray) -> Colour:
    red, green, blue = np.clip(np.round(colour), 0, 255).astype(int).tolist()
    return red, green, blue


def labelled_pictures(by: str, name: str, seed: int, side: int) -> Iterator[Image.Image]:
    """Yield pictures without end whose field `by` ("shape" or "colour") is `name`; all else is random."""
    rng = np.random.default_rng((seed, CLASSES[by].index(name)))
    while True:
        scene = random_scene(rng)
        scene = replace(scene, shape=name) if by == "shape" else replace(scene, colour=name)
        yield draw(scene, random_size(rng, side), rng)


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text}")
    return int(text)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Draw a folder of labelled pictures, one subfolder for each class.")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--by", choices=("shape", "colour"), default="shape", help="what the classes are")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="class names (default: all)")
    parser.add_argument("--per-class", type=partial(_at_least, 1), default=60, metavar="N", help="(default: 60)")
    parser.add_argument("--seed", type=partial(_at_least, 0), default=0)
    shorter = partial(_at_least, SMALLEST_SIDE)
    parser.add_argument("--size", type=shorter, default=96, help="typical shorter edge in pixels (default: 96)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Write out/class/number.jpg or .png, as the command line asks."""
    classes = tuple(dict.fromkeys(args.classes or CLASSES[args.by]))
    if unknown := [name for name in classes if name not in CLASSES[args.by]]:
        raise ValueError(f"unknown {args.by} {', '.join(unknown)}; known are {', '.join(CLASSES[args.by])}")
    for name in classes:
        pictures = labelled_pictures(args.by, name, args.seed, args.size)
        for number, picture in zip(range(args.per_class), pictures, strict=False):
            path = args.out / name / f"{number:03}.{SUFFIXES[number % len(SUFFIXES)]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    print(f"{args.per_class * len(classes)} pictures of {len(classes)} classes in {args.out}")


def main() -> int:
    """Run the program; report bad input as one line."""
    try:
        run(parse_args())
    except (OSError, ValueError) as error:
        print(f"draw.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
