"""Weights of OpenCLIP in a bare file: which of its models they belong to has to be said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip_export.encoders.configuration import read_json
from clip_export.encoders.open_clip_model import ACTIVATION, OpenClipModel
from clip_export.encoders.open_clip_processor import CONFIG
from clip_export.extra import require
from clip_toolkit.errors import EncoderError


def configuration_of(file: Path, model: OpenClipModel | None) -> tuple[str, dict[str, Any]]:
    """Return where the configuration of a bare file comes from, and what it says, as open_clip_config.json does.

    Args:
        file: the weights.
        model: their model; None for the one that open_clip_config.json beside the file describes.

    Raises:
        EncoderError: there is none, or it leaves open what the features depend on.
        MissingDependencyError: a model is named, and open_clip is not installed.
    """
    if model is not None:
        return f"open_clip's {model.name}", _named(file, model)
    path = file.with_name(CONFIG)
    if not path.is_file():
        raise EncoderError(
            f"encoder {str(file)!r}: is a bare file of weights. Name its model with --open-clip-model, such as "
            f"ViT-B-32-quickgelu, or put the {CONFIG} of its authors beside it."
        )
    return str(path), read_json(path)


def _named(file: Path, model: OpenClipModel) -> dict[str, Any]:
    require("openclip", "open_clip")
    import open_clip

    settings = open_clip.get_model_config(model.name)
    if settings is None:
        raise EncoderError(
            f"--open-clip-model {model.name!r}: the installed open_clip {open_clip.__version__} has no such model. "
            "Names: python -c 'import open_clip; print(*open_clip.list_models())'"
        )
    return {"model_cfg": _with_activation(file, settings, model), "preprocess_cfg": _preprocessing(file, model.name)}


def _with_activation(file: Path, settings: dict[str, Any], model: OpenClipModel) -> dict[str, Any]:
    is_told = "quick_gelu" in settings or settings.get("vision_cfg", {}).get("timm_model_name")
    if not is_told and model.activation is None:
        raise EncoderError(
            f"{file}: neither weights nor the name {model.name} tell the activation. Name that of the training with "
            f"{ACTIVATION}: gelu (LAION and most others) or quick_gelu (OpenAI, MetaCLIP, DFN). The wrong one costs "
            "accuracy without a word."
        )
    if is_told and model.activation is not None:
        raise EncoderError(f"{ACTIVATION}: {model.name} names its own activation. Leave the option out.")
    return settings if is_told else settings | {"quick_gelu": model.activation == "quick_gelu"}


def _preprocessing(file: Path, name: str) -> dict[str, Any]:
    """Return the preprocessing of all weights that open_clip knows under a name, if there is one for all of them."""
    import open_clip

    keys = ("mean", "std", "interpolation", "resize_mode")
    tags = open_clip.list_pretrained_tags_by_model(name)
    rules = [{key: open_clip.get_pretrained_cfg(name, tag).get(key) for key in keys} for tag in tags]
    if not rules or any(rule != rules[0] for rule in rules):
        found = "several" if rules else "no"
        raise EncoderError(
            f"{file}: {name} is published with {found} rules of preprocessing, and weights do not tell which. Put an "
            f"{CONFIG} with the model_cfg and the preprocess_cfg of its authors beside the file, and leave out "
            "--open-clip-model."
        )
    return {key: value for key, value in rules[0].items() if value is not None}
