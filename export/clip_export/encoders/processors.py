"""The image processor of a checkpoint: loading the Pillow one, and reading its rule."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import transformers

from clip_export.encoders import open_clip_processor
from clip_export.encoders.configuration import read_json, refuse_code
from clip_export.encoders.families import FAMILIES
from clip_export.encoders.open_clip_processor import OpenClipProcessor
from clip_toolkit.errors import EncoderError
from clip_toolkit.spec.classifier import Preprocessing

_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # values of PIL.Image.Resampling

_KNOWN_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}

_PROCESSORS = {family.image.processor for family in FAMILIES} | {"ViTImageProcessor"}
"""Those whose options, as read here, are all that they do."""

_IN_PILLOW = {family.image.processor: dict(family.image.in_pillow) for family in FAMILIES if family.image.in_pillow}
"""For those that need torchvision, a configuration of a Pillow one that takes the same steps."""

_PLAIN, _NESTED = "preprocessor_config.json", "processor_config.json"
"""Where the processor is described: on its own, and since transformers 5 as a part of what reads images and texts."""

_KIND = "image_processor_type"

LARGEST = 4096
"""Pixels of a side beyond which a processor's sizes are refused: one image would take gigabytes."""


def processor_files(folder: Path) -> list[str]:
    """Name the files that describe the image processor of a checkpoint."""
    found = [_PLAIN] if (folder / _PLAIN).is_file() else []
    found += [_NESTED] if _nested(folder) is not None else []
    return found or ([open_clip_processor.CONFIG] if (folder / open_clip_processor.CONFIG).is_file() else [])


def load_processor(folder: Path, default: str) -> Any:
    """Load the checkpoint's image processor with the Pillow backend: torchvision's changes the pixels.

    Args:
        folder: the checkpoint.
        default: name of the image processor that files without a name mean.

    Raises:
        EncoderError: it is missing, described twice and differently, or of an unknown kind.
    """
    plain = read_json(folder / _PLAIN) if (folder / _PLAIN).is_file() else None
    described = [content for content in (_nested(folder), plain) if content is not None]
    if not described:
        raise EncoderError(f"has no image processor, {_PLAIN} or {_NESTED}. Put that of its authors there.")
    for content in described:
        refuse_code(folder, content)
    processors = [_processor(content, default) for content in described]
    if any(preprocessing_of(other) != preprocessing_of(processors[0]) for other in processors[1:]):
        raise EncoderError(f"{_PLAIN} and {_NESTED} describe different image processors. Delete the wrong one.")
    return processors[0]


def _processor(content: dict[str, Any], default: str) -> Any:
    named = str(content.get(_KIND) or content.get("feature_extractor_type") or default)
    name = named.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
    if name not in _PROCESSORS:
        raise EncoderError(
            f"the image processor {named} is not supported. Supported: {', '.join(sorted(_PROCESSORS))}."
        )
    if name in _IN_PILLOW:
        return _processor(_IN_PILLOW[name] | content | {_KIND: _IN_PILLOW[name][_KIND]}, default)
    kind = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)  # the former since transformers 5
    try:
        return kind.from_dict(content)
    except Exception as error:  # whatever its constructor makes of values that it did not expect
        raise EncoderError(f"the image processor cannot be made ({error}).") from error


def _nested(folder: Path) -> dict[str, Any] | None:
    if not (folder / _NESTED).is_file():
        return None
    found = read_json(folder / _NESTED).get("image_processor")
    return found if isinstance(found, dict) else None


def preprocessing_of(processor: Any) -> Preprocessing:
    """Return the processor's configuration as the rule that the graph and the runtime follow.

    Raises:
        EncoderError: an option that this toolkit does not know, a value out of range, or a size that is not square.
    """
    if isinstance(processor, OpenClipProcessor):
        return processor.rule
    options = processor.to_dict()
    for name, value in options.items():
        if name.startswith("do_") and value and name not in _KNOWN_STEPS:
            raise EncoderError(
                f"image processor: the option {name} is not supported. Supported: {sorted(_KNOWN_STEPS)}."
            )
    _require_on(options, "do_resize")
    _require_on(options, "do_rescale")
    patch, most = _patches(options)
    side = patch * math.isqrt(most)
    mode, resize, size = ("naflex", side, side) if most else _geometry(options)
    normalises = options.get("do_normalize", True)
    return Preprocessing(
        mode=mode,
        resize=resize,
        size=size,
        resample=_resample(options),
        mean=_channels(options, "image_mean") if normalises else (0.0, 0.0, 0.0),
        std=_channels(options, "image_std", positive=True) if normalises else (1.0, 1.0, 1.0),
        scale=_number("rescale_factor", options.get("rescale_factor"), positive=True),
        patch=patch,
        max_patches=most,
    )


def _require_on(options: dict[str, Any], name: str) -> None:
    if not options.get(name, True):
        raise EncoderError(f"image processor: {name} is off, but a classifier must take images of any size and range.")


def _resample(options: dict[str, Any]) -> str:
    resample = options.get("resample")
    if not isinstance(resample, int) or resample not in _RESAMPLE:
        raise EncoderError(f"image processor: resample {resample!r} is not supported. Supported: {_RESAMPLE}.")
    return _RESAMPLE[resample]


def _channels(options: dict[str, Any], name: str, *, positive: bool = False) -> tuple[float, ...]:
    values = options.get(name)
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise EncoderError(f"image processor: expected a list of 3 numbers as {name}, got {values!r}.")
    return tuple(_number(name, value, positive=positive) for value in values)


def _number(name: str, value: Any, *, positive: bool = False) -> float:
    valid = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not valid or (positive and value <= 0):
        raise EncoderError(
            f"image processor: expected a {'positive ' if positive else ''}number in {name}, got {value!r}."
        )
    return float(value)


def _patches(options: dict[str, Any]) -> tuple[int, int]:
    """Side of a patch and the most patches of an image, of a processor that keeps its shape; otherwise zeros."""
    if "max_num_patches" not in options:
        return 0, 0
    patch, most = (_count(options, name) for name in ("patch_size", "max_num_patches"))
    if patch * math.isqrt(most) > LARGEST:
        raise EncoderError(
            f"image processor: {most} patches of {patch} pixels a side are over {LARGEST} pixels a side."
        )
    return patch, most


def _count(options: dict[str, Any], name: str) -> int:
    value = options.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
        raise EncoderError(f"image processor: expected 1 to {LARGEST} as {name}, got {value!r}.")
    return value


def _geometry(options: dict[str, Any]) -> tuple[str, int, int]:
    """Mode, size of the resize, size of the crop."""
    size, crops = _sides(options, "size"), options.get("do_center_crop")
    crop = _sides(options, "crop_size") if crops else size
    if set(size) == {"height", "width"} and crop == size:
        side = _square(size)
        return "squash", side, side
    if set(size) == {"shortest_edge"} and crops:
        side = _square(crop)
        if side > size["shortest_edge"]:
            raise EncoderError(
                f"image processor: a crop of {side} out of {size['shortest_edge']} pixels pads the image."
            )
        return "crop", size["shortest_edge"], side
    raise EncoderError(
        f"image processor: size {size} with do_center_crop={bool(crops)} is not supported. Supported: a shortest_edge "
        "with a centre crop, or height and width without one."
    )


def _sides(options: dict[str, Any], name: str) -> dict[str, int]:
    value: Any = options.get(name)
    sides = {key: side for key, side in value.items() if side is not None} if hasattr(value, "items") else {}
    for side in sides.values():
        if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= LARGEST:
            raise EncoderError(f"image processor: expected 1 to {LARGEST} pixels as {name}, got {side!r}.")
    if not sides:
        raise EncoderError(f"image processor: expected sides in pixels as {name}, got {value!r}.")
    return sides


def _square(size: dict[str, int]) -> int:
    if size.get("height") != size.get("width") or "height" not in size:
        sides = "x".join(str(size.get(name, "?")) for name in ("width", "height"))
        raise EncoderError(f"image processor: {sides} is not square; only square sizes work.")
    return size["height"]
