"""The configuration of a checkpoint, read as data: nothing that it names is run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers

from clip_export.encoders.families import FAMILIES
from clip_toolkit.errors import EncoderError

CONFIG = "config.json"

_CODE = ("auto_map", "custom_pipelines", "quantization_config")
"""Keys that make transformers load code of the checkpoint, or weights of a kind that is not read here."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        EncoderError: there is none, or it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EncoderError(f"{path}: is missing. Put the file that its authors published there.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderError(f"{path}: cannot be read as JSON ({error}).{pointer_remedy(path)}") from error
    if not isinstance(content, dict):
        raise EncoderError(f"{path}: expected a JSON object, got {type(content).__name__}.")
    return content


def read_config(folder: Path) -> Any:
    """Read config.json as a transformers configuration.

    Raises:
        EncoderError: it is missing or damaged, does not name its model type, or names code.
    """
    path = folder / CONFIG
    content = read_json(path)
    kind = content.get("model_type")
    if not isinstance(kind, str):  # transformers would guess it from the folder's name
        raise EncoderError(f"{path}: does not name its model_type, such as clip. Restore the file of its authors.")
    refuse_code(path, content)
    found = _configuration_class(kind)
    if found is None:
        raise EncoderError(f"{path}: transformers {transformers.__version__} does not know the model_type {kind!r}.")
    try:
        return found.from_dict(_without_choices(content))
    except Exception as error:  # whatever a configuration class makes of values that it did not expect
        raise EncoderError(f"{path}: is no configuration of {kind} ({' '.join(str(error).split())[:200]}).") from error


def _configuration_class(kind: str) -> Any:
    """Return the class of a model type; of towers by themselves, transformers registers only some."""
    if kind in transformers.CONFIG_MAPPING:
        return transformers.CONFIG_MAPPING[kind]
    architectures = (name for family in FAMILIES if kind in family.model_types for name in family.architectures)
    classes = (getattr(transformers, name).config_class for name in architectures if hasattr(transformers, name))
    return next((found for found in classes if found.model_type == kind), None)


def refuse_code(path: Path | str, content: Any) -> None:
    """Refuse a configuration that names code, or weights in a quantized form.

    Raises:
        EncoderError: it does; the message names the key.
    """
    for key, value in _items(content):
        if (key in _CODE and value) or (_is_attention(key) and "/" in str(value)):
            raise EncoderError(
                f"{path}: sets {key} to {str(value)[:80]!r}. Code and quantized weights that a checkpoint names are "
                "never loaded. Use a checkpoint without them, or remove the key if its weights do without."
            )


def pointer_remedy(path: Path) -> str:
    """Return what to do about a file that is a Git LFS pointer; nothing for any other file."""
    try:
        with path.open("rb") as file:
            is_pointer = file.read(64).startswith(b"version https://git-lfs")
    except OSError:
        return ""
    return " It is a Git LFS pointer, not the file itself: run 'git lfs pull' in its folder." if is_pointer else ""


def _is_attention(key: str) -> bool:
    return key.strip("_").startswith("attn_implementation")


def _items(content: Any) -> Iterator[tuple[str, Any]]:
    """All keys of nested objects, each with its value."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield str(key), value
            yield from _items(value)
    elif isinstance(content, list):
        for value in content:
            yield from _items(value)


def _without_choices(content: Any) -> Any:
    """Return the configuration without what is chosen here: the precision and the implementation of attention."""
    if isinstance(content, dict):
        chosen = ("dtype", "torch_dtype")
        kept = {key: value for key, value in content.items() if key not in chosen and not _is_attention(key)}
        return {key: _without_choices(value) for key, value in kept.items()}
    return content
