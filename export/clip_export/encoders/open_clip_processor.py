"""Preprocessing as OpenCLIP does it: torchvision's transforms on Pillow images, without torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from clip_toolkit.errors import EncoderError
from clip_toolkit.spec.classifier import Preprocessing

CONFIG = "open_clip_config.json"

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's, for a preprocess_cfg that names none: open_clip/constants.py."""

_MODES = {"shortest": "crop", "longest": "pad", "squash": "squash"}
_KNOWN = {"size", "mean", "std", "interpolation", "resize_mode", "mode", "fill_color"}


@dataclass(frozen=True)
class OpenClipProcessor:
    """OpenCLIP's validation transform.

    Attributes:
        rule: the same, as the graph and the runtime follow it.
    """

    rule: Preprocessing

    @classmethod
    def of(cls, content: dict[str, Any]) -> OpenClipProcessor:
        """Read the ``preprocess_cfg`` of a configuration.

        Raises:
            EncoderError: it is missing, or asks for what is not supported.
        """
        settings, side = content.get("preprocess_cfg"), _side(content.get("model_cfg"))
        if not isinstance(settings, dict):
            raise EncoderError(f"{CONFIG} has no preprocess_cfg. Restore the file of its authors.")
        mode, resample = settings.get("resize_mode") or "shortest", settings.get("interpolation") or "bicubic"
        unknown = sorted(set(settings) - _KNOWN)
        if mode not in _MODES or resample not in ("bicubic", "bilinear") or unknown:
            raise EncoderError(
                f"{CONFIG}: preprocess_cfg with resize_mode {mode!r}, interpolation {resample!r}"
                f"{f' and {unknown[0]}' if unknown else ''} is not supported. Supported: resize_mode "
                f"{' or '.join(_MODES)}, interpolation bicubic or bilinear."
            )
        if _square(settings.get("size") or side) != side:
            raise EncoderError(
                f"{CONFIG}: preprocess_cfg.size is {settings['size']}, but the image tower takes {side}."
            )
        fill = settings.get("fill_color") or 0
        if not isinstance(fill, int) or not 0 <= fill <= 255:
            raise EncoderError(f"{CONFIG}: preprocess_cfg.fill_color is {fill!r}; expected 0 to 255.")
        mean, std = (settings.get(name) or default for name, default in (("mean", _MEAN), ("std", _STD)))
        rule = Preprocessing(_MODES[mode], side, side, resample, tuple(mean), tuple(std), crop_offset="half_even")
        return cls(replace(rule, fill=fill))

    def __call__(self, images: Sequence[Image.Image], return_tensors: str = "pt") -> dict[str, Tensor]:
        """Return ``pixel_values``, float32 ``[images, 3, size, size]``."""
        assert return_tensors == "pt"
        return {"pixel_values": torch.stack([self._values(image) for image in images])}

    def _values(self, image: Image.Image) -> Tensor:
        size, resample = self.rule.size, Image.Resampling[self.rule.resample.upper()]
        if self.rule.mode == "squash":
            image = _resized(image, size, size, resample)
        elif self.rule.mode == "pad":
            ratio = max(image.size) / size
            width, height = (max(round(side / ratio), 1) for side in image.size)
            small = _resized(image, width, height, resample)
            image = Image.new("RGB", (size, size), (self.rule.fill,) * 3)
            image.paste(small, ((size - width) // 2, (size - height) // 2))
        else:
            short = min(image.size)
            width, height = (int(size * side / short) for side in image.size)
            image = _resized(image, width, height, resample)
            left, top = (round((side - size) / 2) for side in image.size)  # to even: torchvision's CenterCrop
            image = image.crop((left, top, left + size, top + size))
        values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(size, size, 3)
        mean, std = torch.tensor(self.rule.mean), torch.tensor(self.rule.std)
        return ((values / 255 - mean) / std).permute(2, 0, 1)


def _resized(image: Image.Image, width: int, height: int, resample: Image.Resampling) -> Image.Image:
    """Resize with the horizontal pass first, as Pillow up to 12 does, with which these checkpoints were made."""
    return image.resize((width, image.height), resample).resize((width, height), resample)


def _side(model: Any) -> int:
    vision = model.get("vision_cfg") if isinstance(model, dict) else None
    return _square((vision or {}).get("image_size", 224))


def _square(size: Any) -> int:
    sides = set(size) if isinstance(size, list | tuple) else {size}
    (side,) = sides if len(sides) == 1 else (None,)
    if not isinstance(side, int) or side < 1:
        raise EncoderError(f"{CONFIG}: image size {size!r} is not square; only square sizes work.")
    return side
