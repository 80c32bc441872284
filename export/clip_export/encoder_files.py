"""The fine-tuned encoder of a head: a folder beside the head file, in transformers format, and known by its hash."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import huggingface_hub
import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from clip_export.checkpoint import digest_of_files
from clip_export.encoder import Encoder
from clip_export.head_files import EncoderReference, TrainedHead, save_head
from clip_toolkit.errors import ClipToolkitError, HeadError, OutputError

_WEIGHTS = "model.safetensors"
_DECISIVE = (_WEIGHTS, "config.json", "preprocessor_config.json")
"""The files that decide the features."""

_KEPT = (".json", ".txt", ".model")  # suffixes of what a checkpoint has beside weights, as for its tokenizer


def encoder_folder(head: Path) -> Path:
    """Where the fine-tuned encoder of a head file lies: ``head.encoder`` beside ``head.pt``."""
    return head.with_name(f"{head.stem}.encoder")


def check_encoder_folder(head: Path, encoder: str) -> None:
    """Find out before hours of work whether a fine-tuned encoder may be written beside a head file.

    Raises:
        OutputError: its place is taken by something else, or by the encoder that is to be read.
    """
    folder = encoder_folder(head)
    if folder.exists() and Path(encoder).exists() and folder.samefile(encoder):
        raise OutputError(f"{folder}: is the encoder that is to be read. Name another head with --out.")
    if folder.exists() and not (folder / _WEIGHTS).is_file():
        raise OutputError(f"{folder}: would be replaced by the fine-tuned encoder, and is none. Name another --out.")


def save_with_encoder(head: TrainedHead, encoder: Encoder, path: Path) -> TrainedHead:
    """Write a head and beside it the encoder that was fine-tuned with it, as a checkpoint that transformers reads.

    The rest of the original checkpoint, such as the text tower and the tokenizer, comes along.

    Returns:
        The head as it was written, which refers to the encoder.

    Raises:
        OutputError: they cannot be written; what was there before is untouched.
    """
    assert head.encoder is not None
    folder = encoder_folder(path)
    with _written_folder(folder) as temporary:
        _save(encoder, temporary)
        reference = replace(head.encoder, folder=folder.name, sha256=digest_of(temporary))
        head = replace(head, encoder=reference)
        save_head(head, path)
    return head


def referenced_encoder(
    head: Path,
    known: EncoderReference | None,
    encoder: str | None = None,
    revision: str | None = None,
    feature: str | None = None,
) -> Encoder:
    """The encoder of a head file, checked if it was fine-tuned with the head.

    Args:
        head: the head file.
        known: what it says of its encoder.
        encoder: hub id or local folder to use in its place.
        revision: on the hub, in place of the known one.
        feature: likewise, of `clip_export.encoder.FEATURES`.

    Raises:
        EncoderError: the encoder cannot be loaded.
        HeadError: the head names no encoder, or its fine-tuned encoder is missing or changed.
    """
    if encoder is None and known is None:
        raise HeadError(f"{head}: does not name its encoder. Give the one it was trained on with --encoder.")
    if known is not None and known.folder is not None:
        folder = Path(encoder) if encoder is not None else head.parent / known.folder
        _check(folder, head, known)
        return Encoder.from_pretrained(str(folder), feature=feature or known.feature)
    if known is None or encoder is not None:
        known = EncoderReference(str(encoder), None, known.feature if known else "pooled")
    return Encoder.from_pretrained(known.id, revision or known.revision, feature or known.feature)


def digest_of(folder: Path) -> str:
    """SHA-256 of all that decides the features of a saved encoder: weights, configuration and preprocessing.

    Raises:
        OSError: a file is missing.
    """
    return digest_of_files(folder, _DECISIVE)


def _check(folder: Path, head: Path, known: EncoderReference) -> None:
    try:
        found = digest_of(folder)
    except OSError as error:
        missing = error.filename or folder
        raise HeadError(
            f"{head}: was trained with an encoder of its own, and {missing} is missing. Keep the folder "
            f"{known.folder} beside the head file, or name its place with --encoder."
        ) from error
    if found != known.sha256:
        raise HeadError(
            f"{head}: {folder} is not the encoder that was fine-tuned with this head: SHA-256 {found[:12]}, expected "
            f"{str(known.sha256)[:12]}. Restore the folder, or train again."
        )


def _save(encoder: Encoder, folder: Path) -> None:
    source = _source(encoder)
    model = _whole_model(encoder, source)
    model.save_pretrained(folder, max_shard_size="1TB")
    shutil.copymode(folder / "config.json", folder / _WEIGHTS)  # safetensors lets nobody else read what it writes
    for path in source.iterdir():
        if path.suffix in _KEPT and not (folder / path.name).exists() and not path.name.endswith(".index.json"):
            shutil.copyfile(path, folder / path.name)


def _source(encoder: Encoder) -> Path:
    """The folder of the checkpoint: of one from the hub that in its cache, completed by what training did not need."""
    if Path(encoder.id).is_dir():
        return Path(encoder.id)
    fetch = partial(huggingface_hub.snapshot_download, encoder.id, revision=encoder.revision)
    try:
        return Path(fetch(allow_patterns=[f"*{suffix}" for suffix in _KEPT]))
    except Exception:  # no network any more: what was loaded is at hand
        return Path(fetch(local_files_only=True))


def _whole_model(encoder: Encoder, source: Path) -> nn.Module:
    """The checkpoint's transformers model, with the fine-tuned image tower and projection."""
    config = transformers.AutoConfig.from_pretrained(source)
    kind = getattr(transformers, (config.architectures or encoder.family.architectures)[0])
    model = kind.from_pretrained(source, dtype=torch.float32)
    getattr(model, "vision_model", model).load_state_dict(encoder.tower.state_dict())
    if encoder.projection is not None:
        name = "vision_proj" if hasattr(model, "vision_proj") else "visual_projection"
        getattr(model, name).load_state_dict(encoder.projection.state_dict())
    return model


@contextmanager
def _written_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends, and is removed when it raises."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        _replace(path, temporary)
    except (OSError, SafetensorError) as error:
        if isinstance(error, ClipToolkitError):
            raise
        raise OutputError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(path: Path, by: Path) -> None:
    """Put a folder in the place of another one; the file system cannot do it in one step."""
    if not path.exists():
        by.rename(path)
        return
    old = by.with_suffix(".old")
    path.rename(old)
    by.rename(path)
    shutil.rmtree(old, ignore_errors=True)
