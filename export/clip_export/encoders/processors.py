"""The image processor of a checkpoint: loading the Pillow one, and reading its rule."""

from __future__ import annotations

from typing import Any

import transformers

from clip_toolkit.errors import EncoderError
from clip_toolkit.spec.classifier import Preprocessing

_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # values of PIL.Image.Resampling

_KNOWN_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}


def load_processor(encoder: str, revision: str | None) -> Any:
    """The checkpoint's image processor with the Pillow backend: torchvision's, the other one, changes the pixels."""
    pillow = {"backend": "pil"} if int(transformers.__version__.split(".")[0]) >= 5 else {"use_fast": False}
    return transformers.AutoImageProcessor.from_pretrained(
        encoder, revision=revision, trust_remote_code=False, **pillow
    )


def preprocessing_of(processor: Any) -> Preprocessing:
    """The processor's configuration as the rule that the graph and the runtime follow.

    Raises:
        EncoderError: an option that this toolkit does not know, or a size that is not square.
    """
    options = processor.to_dict()
    for name, value in options.items():
        if name.startswith("do_") and value and name not in _KNOWN_STEPS:
            raise EncoderError(
                f"image processor: the option {name} is not supported. Supported: {sorted(_KNOWN_STEPS)}."
            )
    _require_on(options, "do_resize")
    _require_on(options, "do_rescale")
    mode, resize, size = _geometry(options)
    normalises = options.get("do_normalize", True)
    return Preprocessing(
        mode=mode,
        resize=resize,
        size=size,
        resample=_resample(options),
        mean=tuple(map(float, options["image_mean"])) if normalises else (0.0, 0.0, 0.0),
        std=tuple(map(float, options["image_std"])) if normalises else (1.0, 1.0, 1.0),
        scale=float(options["rescale_factor"]),
    )


def _require_on(options: dict[str, Any], name: str) -> None:
    if not options.get(name, True):
        raise EncoderError(f"image processor: {name} is off, but a classifier must take images of any size and range.")


def _resample(options: dict[str, Any]) -> str:
    resample = int(options["resample"])
    if resample not in _RESAMPLE:
        raise EncoderError(f"image processor: resample {resample} is not supported. Supported: {_RESAMPLE}.")
    return _RESAMPLE[resample]


def _geometry(options: dict[str, Any]) -> tuple[str, int, int]:
    """Mode, size of the resize, size of the crop."""
    size = {name: value for name, value in options["size"].items() if value is not None}
    if set(size) == {"height", "width"} and not options.get("do_center_crop"):
        side = _square(size)
        return "squash", side, side
    if set(size) == {"shortest_edge"} and options.get("do_center_crop"):
        crop = _square({name: value for name, value in options["crop_size"].items() if value is not None})
        if crop > size["shortest_edge"]:
            raise EncoderError(
                f"image processor: a crop of {crop} out of {size['shortest_edge']} pixels pads the image."
            )
        return "crop", size["shortest_edge"], crop
    raise EncoderError(
        f"image processor: size {size} with do_center_crop={bool(options.get('do_center_crop'))} is not supported. "
        "Supported: a shortest_edge with a centre crop, or height and width without one."
    )


def _square(size: dict[str, Any]) -> int:
    if size["height"] != size["width"]:
        raise EncoderError(f"image processor: {size['width']}x{size['height']} is not square; only square sizes work.")
    return int(size["height"])
