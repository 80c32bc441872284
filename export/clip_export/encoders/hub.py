"""From an encoder id to a folder on this machine: a local one, or that of the model hub's cache."""

from __future__ import annotations

import re
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError

from clip_export.encoders.model_card import CARD
from clip_toolkit.errors import EncoderError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_CONFIGURATIONS = ("config.json", "open_clip_config.json", "adapter_config.json")
_SMALL = (".json", ".txt", ".model", CARD)  # configuration, tokenizer, indices of weights, and the licence
_WHOLE = ("model", "pytorch_model", "adapter_model", "open_clip_model", "open_clip_pytorch_model")
_REMEDY = "Check the id, or give a local folder with config.json, preprocessor_config.json and model.safetensors."
_PATIENCE = 10  # seconds that the hub may take to answer


def local_folder(encoder: str, revision: str | None) -> Path:
    """Find the folder of an encoder, and fetch it from the hub if need be.

    The hub is asked once, and not at all for a commit that is in the cache.

    Args:
        encoder: hub id or local folder.
        revision: branch, tag or commit on the hub.

    Raises:
        EncoderError: there is no such folder, the hub does not have it, or cannot be reached and the cache lacks it.
    """
    if Path(encoder).is_dir():
        return Path(encoder)
    if Path(encoder).is_file():
        raise EncoderError(f"encoder {encoder!r}: is a file. Give the folder of a checkpoint, or a hub id.")
    if not _ID.fullmatch(encoder):
        raise EncoderError(
            f"encoder {encoder!r}: no local folder of this name, and no hub id either, which looks like "
            f"openai/clip-vit-base-patch32. {_REMEDY}"
        )
    cached = _cached(encoder, revision)
    if cached is not None and _COMMIT.fullmatch(str(revision)) and _is_whole(cached):
        return cached
    try:
        info = huggingface_hub.HfApi().model_info(encoder, revision=revision, timeout=_PATIENCE)
    except HfHubHTTPError as error:
        raise _missing(encoder, revision, f"the model hub answers: {_reason(error)}") from error
    except Exception as error:  # no network: the client's HTTP library differs between its versions
        if cached is not None:
            return cached
        raise _missing(encoder, revision, f"the model hub cannot be reached ({_reason(error)})") from error
    return _fetched(encoder, revision, info)


def commit_of(folder: Path) -> str | None:
    """Return the commit that a folder in the hub's cache holds; None for any other folder."""
    found = re.search(r"/snapshots/([0-9a-f]{40})(/|$)", folder.as_posix())
    return found[1] if found else None


def _cached(encoder: str, revision: str | None) -> Path | None:
    """Return the checkpoint in the cache, if its weights are there: other programs may have fetched a part of it."""
    for name in _CONFIGURATIONS:
        try:
            found = huggingface_hub.try_to_load_from_cache(encoder, name, revision=revision)
        except Exception:  # no name that the hub would give
            return None
        if isinstance(found, str):  # the folder alone: newer clients call one without its README.md incomplete
            folder = Path(found).parent
            return folder if any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir()) else None
    return None


def _is_whole(folder: Path) -> bool:
    """Whether nothing can be missing that some part of this package reads."""
    names = [path.name for path in folder.iterdir()]
    return all(any(part in name for name in names) for part in ("config.json", "processor", "token"))


def _fetched(encoder: str, revision: str | None, info: huggingface_hub.ModelInfo) -> Path:
    """Return the checkpoint in the cache, completed by what is not there yet, under the name that was asked for."""
    names = [item.rfilename for item in info.siblings or () if "/" not in item.rfilename]
    wanted = [name for name in names if name.endswith(_SMALL)] + _weight_files(names)
    cached = _cached(encoder, info.sha)
    if cached is not None and all((cached / name).is_file() for name in wanted):
        return cached
    try:
        return Path(huggingface_hub.snapshot_download(encoder, revision=revision, allow_patterns=wanted))
    except Exception as error:  # the connection, the disk, or the hub's answer
        raise _missing(encoder, info.sha, f"it cannot be fetched ({_reason(error)})") from error


def _weight_files(names: list[str]) -> list[str]:
    """Return the files of weights to fetch: safetensors where there are any, and no copies in other precisions."""
    for suffix in (".safetensors", ".bin"):
        found = [name for name in names if name.endswith(suffix)]
        if found:
            return [name for name in found if name.removesuffix(suffix) in _WHOLE] or found
    return []


def _missing(encoder: str, revision: str | None, reason: str) -> EncoderError:
    at = f" at {revision!r}" if revision else ""
    return EncoderError(f"encoder {encoder!r}{at}: no local folder of this name, and {reason}. {_REMEDY}")


def _reason(error: Exception) -> str:
    """Return the beginning of a foreign error: those of the hub end with advice on its own tools."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200].rstrip(".")
