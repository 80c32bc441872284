"""A map laid over the part of the image that the encoder sees, with a line that says what it is and a scale.

The colours are points of matplotlib's *inferno* (https://bids.github.io/colormap), which grow lighter all the way: they
read in grey, and by the colour-blind. No step of it is grey itself, as the image below is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clip_toolkit.images.preprocess import crop_offset, resized_shape
from clip_toolkit.prediction import Prediction
from clip_toolkit.spec.classifier import Preprocessing
from clip_toolkit.spec.tasks import REGRESSION

_COLOURS = np.array(((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)), float)
_SIDE = 480  # pixels of the shorter side of the image in an overlay
_STRIP = 64  # pixels of what stands below it
_OPACITY = 0.75  # of the strongest part; of others it falls with the root of their strength
_FONT = 15.0  # pixels
_FILTER = Image.Resampling.BICUBIC


def seen_part(height: int, width: int, rule: Preprocessing) -> tuple[float, float, float, float]:
    """Return what the encoder sees of an image: left, top, right and bottom in its pixels, beyond it where padded."""
    new_height, new_width = resized_shape(height, width, rule)
    if rule.mode not in ("crop", "pad"):
        return 0.0, 0.0, float(width), float(height)
    left, top = ((_offset(side, rule)) for side in (new_width, new_height))
    across, down = width / new_width, height / new_height
    return left * across, top * down, (left + rule.size) * across, (top + rule.size) * down


def _offset(side: int, rule: Preprocessing) -> int:
    return crop_offset(side, rule.size, rule.crop_offset) if rule.mode == "crop" else -((rule.size - side) // 2)


def overlay(image: Image.Image, map_: NDArray[np.float32], title: str, rule: Preprocessing) -> Image.Image:
    """Draw a map over an image as `laid_over` does, and below it a title and a scale."""
    drawn = laid_over(image, map_, rule)
    page = Image.new("RGB", (drawn.width, drawn.height + _STRIP), "white")
    page.paste(drawn)
    _legend(page, title, is_empty=not (map_ > 0).any())
    return page


def laid_over(image: Image.Image, map_: NDArray[np.float32], rule: Preprocessing) -> Image.Image:
    """Draw a map over the part of an image that the encoder sees, in grey.

    Args:
        image: the whole image, RGB.
        map_: float32 ``[rows, columns]`` over what the encoder sees; what is not positive gets no colour.
        rule: the encoder's, which says what it sees.
    """
    left, top, right, bottom = seen_part(image.height, image.width, rule)
    scale = _SIDE / min(right - left, bottom - top)
    size = (round((right - left) * scale), round((bottom - top) * scale))
    return _mixed(image.transform(size, Image.Transform.EXTENT, (left, top, right, bottom), _FILTER), map_)


def laid_over_seen(seen: Image.Image, map_: NDArray[np.float32]) -> Image.Image:
    """Draw a map as `laid_over` does, over pixels that the encoder was given."""
    scale = _SIDE / min(seen.size)
    return _mixed(seen.resize((round(seen.width * scale), round(seen.height * scale)), _FILTER), map_)


def _mixed(seen: Image.Image, map_: NDArray[np.float32]) -> Image.Image:
    strength = _strength(map_, seen.size)
    grey = np.asarray(seen.convert("L"), float)[..., None]
    mixed = grey + _OPACITY * np.sqrt(strength)[..., None] * (_coloured(strength) - grey)
    return Image.fromarray(np.rint(mixed).clip(0, 255).astype(np.uint8))


def _strength(map_: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the positive part in shares of its largest, resized to ``size`` (width, height)."""
    positive = np.maximum(np.nan_to_num(map_, posinf=0), 0).astype(np.float32)
    shares = positive / (positive.max() or 1)
    return np.asarray(Image.fromarray(shares).resize(size, Image.Resampling.BILINEAR)).clip(0, 1)


def _coloured(strength: NDArray[np.float32]) -> NDArray[np.float64]:
    points = np.linspace(0, 1, len(_COLOURS))
    return np.stack([np.interp(strength, points, channel) for channel in _COLOURS.T], axis=-1)


def _legend(page: Image.Image, title: str, *, is_empty: bool) -> None:
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(_FONT)
    top = page.height - _STRIP
    pen.text((8, top + 6), _fitting(title, page.width - 16, font), "black", font)
    if is_empty:
        pen.text((8, top + 34), "nothing in it speaks for that", "black", font)
        return
    ramp = np.broadcast_to(np.linspace(0, 1, 160, dtype=np.float32), (14, 160))
    page.paste(Image.fromarray(_coloured(ramp).astype(np.uint8)), (80, top + 37))
    pen.text((8, top + 34), "nothing", "black", font)
    pen.text((248, top + 34), "most, in this image", "black", font)


def _fitting(title: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Cut a title to a width in pixels."""
    shown = title
    while font.getlength(shown) > width:
        shown = f"{shown.removesuffix('...')[:-1]}..."
    return shown


def explained_label(prediction: Prediction) -> str:
    """Say what a map of this prediction is about, and how probable that is, or how large."""
    index = int(prediction.logits.argmax())
    subject = f"what speaks for {explained(prediction.labels, prediction.logits, prediction.task)}"
    if prediction.task == REGRESSION:
        return f"{subject} (here {prediction.logits[index]:.5g})"
    decided = "" if prediction.labels[index] in prediction.decisions else ", most probable but not predicted"
    return f"{subject} ({prediction.probabilities[index]:.1%}{decided})"


def explained(labels: Sequence[str], logits: NDArray[np.float32], task: str) -> str:
    """Name what a map speaks for: the label with the largest logit; of a regression, that the value is large."""
    name = labels[int(logits.argmax())]
    return f"a large {name}" if task == REGRESSION else name
