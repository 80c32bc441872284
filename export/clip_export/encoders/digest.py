"""What stands for the content of a local checkpoint: a hash of all files that decide its features."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from clip_export.encoders.adapter import ADAPTER, adapter_files
from clip_export.encoders.configuration import CONFIG
from clip_export.encoders.hub import commit_of
from clip_export.encoders.open_clip import is_open_clip, open_clip_files
from clip_export.encoders.open_clip_processor import CONFIG as OPEN_CLIP
from clip_export.encoders.processors import processor_files
from clip_export.encoders.weights import weight_files
from clip_toolkit.files.stamp import sha256_of

_TOKENIZER = re.compile(r"(tokenizer|vocab|merges|special_tokens_map|added_tokens|spiece).*\.(json|txt|model)")


def content_digest(folder: Path) -> str:
    """SHA-256 of all that decides the features of a checkpoint: weights, configuration and preprocessing.

    These are the files that loading reads, and it reads no others but those of `tokenizer_digest`.

    Raises:
        EncoderError: weights are missing, or an index of theirs leads outside the folder.
        OSError: a file cannot be read.
    """
    configuration = [CONFIG] if (folder / CONFIG).is_file() else []
    if (folder / ADAPTER).is_file():
        weights = adapter_files(folder)
    elif is_open_clip(folder):
        return digest_of_files(folder, [*open_clip_files(folder), OPEN_CLIP])
    else:
        weights = weight_files(folder)
    return digest_of_files(folder, [*weights, *configuration, *processor_files(folder)])


def tokenizer_digest(folder: Path) -> str | None:
    """SHA-256 of the files that make a local checkpoint's tokenizer; None in the hub's cache, where a commit says it.

    Apart from `content_digest`: heads that read images alone do not depend on it.

    Raises:
        OSError: a file cannot be read.
    """
    if commit_of(folder) is not None:
        return None
    return digest_of_files(folder, tokenizer_files(folder))


def tokenizer_files(folder: Path) -> list[str]:
    """Name the files that make a checkpoint's tokenizer."""
    return sorted(path.name for path in folder.iterdir() if _TOKENIZER.fullmatch(path.name))


def digest_of_files(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 of the names and contents of files.

    Raises:
        OSError: a file is missing.
    """
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name} {sha256_of(folder / name)}\n".encode())
    return digest.hexdigest()
