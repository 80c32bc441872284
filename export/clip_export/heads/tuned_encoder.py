"""The fine-tuned encoder of a head: a folder beside the head file, in transformers format, and named by its hash.

A folder is therefore never replaced, and its head is there or not: the new folder is whole before the head file that
refers to it takes the place of an earlier one, whose encoder stays for the copies of it that may be about.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from clip_export.encoders.configuration import CONFIG
from clip_export.encoders.digest import content_digest, tokenizer_digest
from clip_export.encoders.feature_names import token_feature
from clip_export.encoders.image import Encoder
from clip_export.encoders.open_clip_model import OpenClipModel
from clip_export.encoders.saving import save_checkpoint
from clip_export.encoders.weights import SAFETENSORS
from clip_export.heads.files import TrainedHead, save_head
from clip_export.heads.references import EncoderReference
from clip_toolkit.errors import ClipToolkitError, EncoderError, HeadError, OutputError
from clip_toolkit.files.atomic import flush, flush_folder, temporary_beside


def encoder_folder(head: Path, sha256: str) -> Path:
    """Where the fine-tuned encoder of a head file lies: ``head.pt.encoder-<hash>`` beside ``head.pt``."""
    return head.with_name(f"{head.name}.encoder-{sha256[:12]}")


def earlier_encoders(head: Path, now: EncoderReference | None) -> list[Path]:
    """Folders of encoders that were written with a head file of this name, other than the one that it reads ``now``."""
    prefix, current = encoder_folder(head, "").name, now.folder if now is not None else None
    folders = (path for path in head.absolute().parent.iterdir() if path.name.startswith(prefix) and path.is_dir())
    return sorted(head.with_name(folder.name) for folder in folders if folder.name != current)


def save_with_encoder(head: TrainedHead, encoder: Encoder, path: Path) -> TrainedHead:
    """Write a head and beside it the encoder that was fine-tuned with it, as a checkpoint that transformers reads.

    The rest of the original checkpoint, such as the text tower and the tokenizer, comes along.

    Returns:
        The head as it was written, which refers to the encoder.

    Raises:
        OutputError: they cannot be written; what was there before is untouched.
    """
    assert head.encoder is not None
    with _temporary_folder(path) as temporary:
        save_checkpoint(encoder, temporary)
        sha256 = content_digest(temporary)
        folder = encoder_folder(path, sha256)
        head = replace(head, encoder=replace(head.encoder, folder=folder.name, sha256=sha256))
        new = _placed(temporary, folder, sha256)
        try:
            save_head(head, path)
        except Exception:
            if new:
                shutil.rmtree(folder, ignore_errors=True)
            raise
    return head


def referenced_encoder(
    head: Path,
    known: EncoderReference | None,
    encoder: str | None = None,
    revision: str | None = None,
    feature: str | None = None,
    *,
    open_clip_model: OpenClipModel | None = None,
) -> Encoder:
    """Load the encoder of a head file, and check it if it was fine-tuned with the head.

    Args:
        head: the head file.
        known: what it says of its encoder.
        encoder: hub id, local folder or bare file to use in its place.
        revision: on the hub, in place of the known one.
        feature: likewise, as in `clip_export.encoders.image.Encoder`.
        open_clip_model: of a bare file; by default the known one.

    Raises:
        EncoderError: the encoder cannot be loaded.
        HeadError: the head names no encoder, or one that has changed since the training; or its fine-tuned encoder is
            missing, changed, or asked for by revision or for another feature than that of a depth that it has learnt.
    """
    if encoder is None and known is None:
        raise HeadError(f"{head}: does not name its encoder. Give the one it was trained on with --encoder.")
    if known is not None and known.folder is not None:
        if revision is not None:
            raise HeadError(f"{head}: has its own encoder, {known.folder}, of one revision. Leave out --revision.")
        if feature not in (None, known.feature) and token_feature(known.feature) is not None:
            raise HeadError(f"{head}: its own encoder has learnt {known.feature}, not {feature}. Leave out --feature.")
        folder = Path(encoder) if encoder is not None else head.parent / known.folder
        _check(folder, head, known)
        return Encoder.from_pretrained(str(folder), feature=feature or known.feature)
    if encoder is None and known is not None and Path(known.id).is_absolute() and not Path(known.id).exists():
        raise HeadError(
            f"{head}: was trained on the encoder {known.id}, and there is none. Name its place with "
            "--encoder: a head file remembers a local one as seen from its own place."
        )
    model = open_clip_model or (None if known is None else known.open_clip_model)
    if known is None or encoder is not None:
        known = replace(known or EncoderReference(""), id=str(encoder), revision=None, tokenizer=None)
        model = model if Path(known.id).is_file() else open_clip_model
    loaded = Encoder.from_pretrained(
        known.id, revision or known.revision, feature or known.feature, model, known.input_size
    )
    before, now = known.revision, loaded.revision
    if revision is None and before and now and before != now:
        raise HeadError(
            f"{head}: {known.id} is not what this head was trained on: it has changed since, from {before[:12]} to "
            f"{now[:12]}. Restore it, or train again; to use it all the same, name it with --encoder."
        )
    if revision is None and known.tokenizer and known.tokenizer != tokenizer_digest(loaded.checkpoint.source):
        raise HeadError(
            f"{head}: the tokenizer of {known.id} has changed since this head was trained. Restore its files, or train "
            "again; to use it all the same, name the encoder with --encoder."
        )
    return loaded


def _check(folder: Path, head: Path, known: EncoderReference) -> None:
    missing = [folder / name for name in (SAFETENSORS, CONFIG) if not (folder / name).is_file()]
    if missing:
        raise HeadError(
            f"{head}: was trained with an encoder of its own, and {missing[0]} is missing. Keep the folder "
            f"{known.folder} beside the head file, or name its place with --encoder."
        )
    found = content_digest(folder)
    if found != known.sha256:
        raise HeadError(
            f"{head}: {folder} is not the encoder that was fine-tuned with this head: SHA-256 {found[:12]}, expected "
            f"{str(known.sha256)[:12]}. Restore the folder, or train again."
        )


@contextmanager
def _temporary_folder(head: Path) -> Iterator[Path]:
    """Yield a folder beside a head file that is gone when the block ends, unless it has another name by then."""
    try:
        with temporary_beside(head, is_folder=True) as temporary:
            yield temporary
    except (OSError, SafetensorError) as error:
        if isinstance(error, ClipToolkitError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{head}: its encoder cannot be written ({reason})") from error


def _placed(temporary: Path, folder: Path, sha256: str) -> bool:
    """Give a whole folder its name; False if the same one is there already, as after the same training."""
    if folder.exists():
        if not _holds(folder, sha256):
            raise OutputError(f"{folder}: does not hold the encoder that its name says. Delete it.")
        return False
    for path in temporary.iterdir():
        flush(path)
    flush_folder(temporary)
    temporary.rename(folder)
    return True


def _holds(folder: Path, sha256: str) -> bool:
    try:
        return content_digest(folder) == sha256
    except (OSError, EncoderError):
        return False
