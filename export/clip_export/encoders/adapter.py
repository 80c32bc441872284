"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) in the format of peft, merged into what they adapt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from clip_export.encoders.configuration import read_json, refuse_code
from clip_export.encoders.weights import read_tensors
from clip_toolkit.errors import EncoderError

ADAPTER = "adapter_config.json"
_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])(\.default)?\.weight")
_PREFIX = "base_model.model."

_PLAIN = {"peft_type": "LORA", "fan_in_fan_out": False, "bias": "none", "use_dora": False}
"""What is read here. Other values change what the factors mean."""


def adapter_files(folder: Path) -> list[str]:
    """Name the files of an adapter: its weights, and its configuration behind them.

    Raises:
        EncoderError: it has no weights.
    """
    for name in _FILES:
        if (folder / name).is_file():
            return [name, ADAPTER]
    raise EncoderError(f"{folder}: has {ADAPTER}, but no {_FILES[0]}.")


def adapter_base(folder: Path) -> tuple[str, str | None]:
    """Return the id of the checkpoint that an adapter was trained on, and its revision if it names one.

    Raises:
        EncoderError: it names none, or is of a kind that is not read.
    """
    settings = _settings(folder)
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise EncoderError(f"{folder / ADAPTER}: does not name its checkpoint (base_model_name_or_path).")
    return base, settings.get("revision") or None


def merged(weights: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Return weights with an adapter added: ``W + alpha / r * B @ A``, computed in float32.

    Raises:
        EncoderError: it does not fit these weights, or is of a kind that is not read.
    """
    settings, tensors = _settings(folder), read_tensors(folder / adapter_files(folder)[0])
    factors: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = _FACTOR.fullmatch(name)
        if found is None:
            raise EncoderError(
                f"{folder}: holds {name}, which is no LoRA factor. Merge it with peft's merge_and_unload."
            )
        factors.setdefault(found["module"].removeprefix(_PREFIX), {})[found["factor"]] = tensor.float()
    return weights | {
        f"{module}.weight": _adapted(weights, module, pair, _scale(settings, module, pair), folder)
        for module, pair in factors.items()
    }


def _adapted(weights: dict[str, Tensor], module: str, pair: dict[str, Tensor], scale: float, folder: Path) -> Tensor:
    weight = weights.get(f"{module}.weight")
    change = pair["B"] @ pair["A"]
    if weight is None or weight.shape != change.shape:
        expected = "which its checkpoint does not have" if weight is None else f"which is {list(weight.shape)} there"
        raise EncoderError(
            f"{folder}: adapts {module} by {list(change.shape)}, {expected}: it belongs to another checkpoint. Correct "
            f"base_model_name_or_path in {ADAPTER}."
        )
    return weight.float() + scale * change


def _scale(settings: dict[str, Any], module: str, pair: dict[str, Tensor]) -> float:
    if set(pair) != {"A", "B"} or any(factor.ndim != 2 for factor in pair.values()):
        raise EncoderError(f"adapter of {module}: expected two matrices, lora_A and lora_B. Fetch the whole file.")
    alpha = next(
        (value for pattern, value in (settings.get("alpha_pattern") or {}).items() if _ends_with(module, pattern)),
        settings["lora_alpha"],
    )
    rank = pair["A"].shape[0]
    return float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank)


def _ends_with(module: str, pattern: str) -> bool:
    """Follow peft's rule for the keys of ``rank_pattern`` and ``alpha_pattern``."""
    return re.fullmatch(rf"(.*\.)?({pattern})$", module) is not None


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER
    settings = read_json(path)
    refuse_code(path, settings)
    for name, expected in _PLAIN.items():
        if settings.get(name, expected) != expected:
            raise EncoderError(
                f"{path}: {name} is {settings[name]!r}, and only {expected!r} is read. Merge the adapter with peft's "
                "merge_and_unload, and save the whole checkpoint."
            )
    if not isinstance(settings.get("lora_alpha"), int | float):
        raise EncoderError(f"{path}: expected a number as lora_alpha, got {settings.get('lora_alpha')!r}.")
    return settings
