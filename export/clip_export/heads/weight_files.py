"""Files of weights from anybody: nothing in them is ever executed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from clip_toolkit.errors import HeadError, first_line

FORMAT = "clip-toolkit-head"
"""Key of the description in files of clip-train."""


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Read a ``.safetensors`` file, as `read_pickle`."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(FORMAT)
            return {name: file.get_tensor(name) for name in file.keys()}, text  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError) as error:
        raise HeadError(f"{path}: not a readable safetensors file ({error})") from error


def read_pickle(path: Path) -> tuple[Any, str | None]:
    """Read a file of ``torch.save``, with ``weights_only=True``.

    Returns:
        The weights, or what a notebook has saved around them; and the description in a file of clip-train, else None.

    Raises:
        HeadError: the file is damaged, or holds code.
    """
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise HeadError(
            f"{path}: holds Python objects instead of plain weights, and loading those could run any code. Save the "
            "state_dict instead: torch.save(mlp_head.state_dict(), 'head.pt')"
        ) from error
    except Exception as error:  # a truncated archive raises RuntimeError, EOFError, KeyError, ...
        raise HeadError(f"{path}: not a readable PyTorch file ({first_line(error)})") from error
    if isinstance(content, Mapping) and FORMAT in content:
        return content.get("state_dict", {}), content[FORMAT]
    return content, None


def archive_names(path: Path) -> list[str]:
    """Return the names in a file that is an archive; none of PyTorch's older format."""
    return [item.filename for item in _items(path)]


def _check_archive(path: Path) -> None:
    """Refuse archives that unpack to more than they are: torch.save compresses nothing."""
    items = _items(path)
    if any(item.compress_type != zipfile.ZIP_STORED for item in items) or (
        sum(item.file_size for item in items) > path.stat().st_size
    ):
        raise HeadError(f"{path}: its archive is compressed, which torch.save never does. Save the head again.")


def _items(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, OSError):  # PyTorch's older format, or no such file at all
        return []
    except Exception as error:  # damaged names, versions and sizes raise what they come upon
        raise HeadError(f"{path}: not a readable PyTorch file ({first_line(error)})") from error
