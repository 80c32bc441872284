"""How notebooks bring an image to the encoder's size, other than by the checkpoint's own processor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from clip_toolkit.images.preprocess import resized_shape
from clip_toolkit.spec.classifier import Preprocessing

Resize = Callable[[Image.Image, Preprocessing], Tensor]
"""From an RGB image to float32 ``[3, size, size]``, 0 to 255."""


def _pillow(picture: Image.Image, height: int, width: int, resample: Image.Resampling) -> Tensor:
    return _tensor(picture.resize((width, height), resample))


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()


def _interpolated(picture: Image.Image, height: int, width: int, mode: str, *, antialias: bool) -> Tensor:
    """Of a uint8 tensor, as torchvision has it: rounded, and cut to 0 to 255."""
    found = functional.interpolate(
        _tensor(picture)[None], (height, width), mode=mode, antialias=antialias, align_corners=False
    )
    return found[0].round().clamp(0, 255)


def _edges(picture: Image.Image, rule: Preprocessing) -> tuple[int, int]:
    """Height and width with the shorter edge at the rule's size, whatever the rule's own mode."""
    short, long = sorted(picture.size)
    resized = int(rule.resize * long / short)
    return (rule.resize, resized) if picture.height <= picture.width else (resized, rule.resize)


def _cropped(image: Tensor, rule: Preprocessing) -> Tensor:
    """Return the centre, by torchvision's rule: half of an odd difference is rounded to even; pad what is smaller."""
    down, right = (max(rule.size - side, 0) for side in image.shape[1:])
    borders = (right // 2, right - right // 2, down // 2, down - down // 2)
    image = functional.pad(image, borders, value=float(rule.fill))
    top, left = (round((side - rule.size) / 2) for side in image.shape[1:])
    return image[:, top : top + rule.size, left : left + rule.size]


def _by_rule(picture: Image.Image, rule: Preprocessing) -> tuple[int, int]:
    return resized_shape(picture.height, picture.width, rule)


def _resample(rule: Preprocessing) -> Image.Resampling:
    return Image.Resampling[rule.resample.upper()]


RESIZES: dict[str, Resize] = {
    "torchvision": lambda picture, rule: _cropped(
        _interpolated(picture, *_by_rule(picture, rule), rule.resample, antialias=True), rule
    ),
    "no-antialias": lambda picture, rule: _cropped(
        _interpolated(picture, *_by_rule(picture, rule), rule.resample, antialias=False), rule
    ),
    "crop": lambda picture, rule: _cropped(_pillow(picture, *_edges(picture, rule), _resample(rule)), rule),
    "bilinear": lambda picture, rule: _cropped(
        _pillow(picture, *_by_rule(picture, rule), Image.Resampling.BILINEAR), rule
    ),
    "squash": lambda picture, rule: _pillow(picture, rule.size, rule.size, _resample(rule)),
    "squash-bilinear": lambda picture, rule: _pillow(picture, rule.size, rule.size, Image.Resampling.BILINEAR),
    "opencv": lambda picture, rule: _interpolated(picture, rule.size, rule.size, "bilinear", antialias=False),
}
"""By name."""
