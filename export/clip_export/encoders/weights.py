"""The weights of a checkpoint, by name: of one file, or of several with an index, all in one folder."""

from __future__ import annotations

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from clip_export.encoders.configuration import pointer_remedy, read_json
from clip_toolkit.errors import EncoderError

SAFETENSORS = "model.safetensors"
_SINGLE = (SAFETENSORS, "pytorch_model.bin")
"""In the order in which transformers looks for them; each may be an index of several files instead."""

_PROGRAM_REMEDY = " It is a program: torch.save(torch.jit.load(FILE, 'cpu').float().state_dict(), NEW) takes them out."
"""OpenAI's own files are such, in float16."""

_FORBIDDEN = re.compile(r"Unsupported global: GLOBAL (\S+)")  # as PyTorch names what it does not unpickle

_READ = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def weight_files(folder: Path) -> list[str]:
    """Name the files of a checkpoint's weights, an index behind the files that it lists.

    Raises:
        EncoderError: there are none, or an index leads outside its folder.
    """
    for name in _SINGLE:
        if (folder / name).is_file():
            return [name]
        index = f"{name}.index.json"
        if (folder / index).is_file():
            return [*_shards(folder / index), index]
    raise EncoderError(
        f"{folder}: has no weights. Expected {' or '.join(_SINGLE)}, or an index of several files (*.index.json)."
    )


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read all weights of a checkpoint, in the precision that they are stored in.

    Raises:
        EncoderError: they are missing, damaged, or of a kind that cannot be computed with.
    """
    weights: dict[str, Tensor] = {}
    for name in weight_files(folder):
        if not name.endswith(".json"):
            weights |= read_tensors(folder / name)
    return weights


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read one file of tensors: safetensors, or a PyTorch dictionary of tensors.

    Raises:
        EncoderError: it is missing or damaged, or holds anything but plain tensors.
    """
    tensors: Any
    try:
        if path.suffix == ".safetensors":
            tensors = safetensors.torch.load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        remedy = _PROGRAM_REMEDY if "TorchScript" in str(error) else pointer_remedy(path)
        raise EncoderError(f"{path}: its weights cannot be loaded ({_first_line(error)}).{remedy}") from error
    except Exception as error:  # the unpickler's refusals, and what damaged archives raise
        raise EncoderError(
            f"{path}: its weights cannot be loaded: expected a dictionary of tensors ({_refusal(error)}). Save the "
            f"state_dict instead of the module.{pointer_remedy(path)}"
        ) from error
    tensors = tensors.get("state_dict", tensors) if isinstance(tensors, dict) else tensors
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise EncoderError(f"{path}: its weights cannot be loaded: expected a dictionary of tensors.")
    for name, tensor in tensors.items():
        if tensor.dtype not in _READ and tensor.dtype != torch.int64:  # positions, which nothing is computed with
            raise EncoderError(
                f"{path}: {name} is stored as {tensor.dtype}. Expected float32, float16 or bfloat16: quantized weights "
                "cannot be exported. Use the checkpoint that they were made from."
            )
    return tensors


def _shards(index: Path) -> list[str]:
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise EncoderError(f"{index}: expected a weight_map from weights to files.")
    names = sorted(set(map(str, files.values())))
    for name in names:
        if Path(name).name != name or "\\" in name:
            raise EncoderError(f"{index}: names {name!r}, and only files of its own folder are read.")
        if not (index.parent / name).is_file():
            raise EncoderError(f"{index}: names {name}, which is missing. Fetch all parts of the checkpoint.")
    return names


def _refusal(error: Exception) -> str:
    """Put PyTorch's refusal, which fills a screen, into words."""
    held = _FORBIDDEN.search(str(error))
    if held is not None:
        return f"got {held[1]}, a Python object, and loading those could run any code"
    return "got something else, or a damaged one" if isinstance(error, UnpicklingError) else _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
