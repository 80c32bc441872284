"""What a head file says of where it comes from: its encoder, and its images.

A head file is handed on. So it names folders as seen from where it lies, never from the root of the machine, and images
by their content, never by names that may be a patient's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from clip_export.encoders.open_clip_model import OpenClipModel
from clip_toolkit.spec.classifier import EncoderSpec
from clip_toolkit.spec.json_codec import LATER
from clip_toolkit.spec.licenses import License

_DIGEST_LENGTH = 32  # hexadecimal digits: 128 bits, so that equal ones mean equal files


@dataclass(frozen=True)
class EncoderReference:
    """Which encoder a head was trained on.

    Attributes:
        id: hub id or path of a local folder or bare file; in the file that path is relative to it and begins with a
            dot.
        revision: commit on the hub; of a local one the SHA-256 of its content.
        feature: what the head reads, as in `clip_export.encoders.image.Encoder`.
        text: whether the head reads the feature of a text, too, behind that of the image: by the text tower of the same
            checkpoint.
        folder: of the encoder that was fine-tuned with the head from the one that ``id`` names, relative to the head
            file; None if the encoder was frozen.
        sha256: of that folder, as in `clip_export.encoders.digest.content_digest`.
        tokenizer: of heads that read texts, as in `clip_export.encoders.digest.tokenizer_digest`; None in older files.
        open_clip_model: of an encoder in a bare file.
        licenses: as in `clip_toolkit.spec.classifier.EncoderSpec`, as they were at the training.
        input_size: pixels of a side, where that is not the encoder's own.
    """

    id: str
    revision: str | None = None
    feature: str = "pooled"
    folder: str | None = None
    sha256: str | None = None
    text: bool = False
    tokenizer: str | None = None
    open_clip_model: OpenClipModel | None = None
    licenses: tuple[License, ...] = field(default=(), metadata=LATER)
    input_size: int | None = field(default=None, metadata=LATER)

    def seen_from(self, head: Path) -> EncoderReference:
        """Return the reference as the file ``head`` keeps it."""
        return replace(self, id=_relative(self.id, head)) if Path(self.id).is_absolute() else self

    def found_from(self, head: Path) -> EncoderReference:
        """Return the reference that the file ``head`` keeps, with the absolute path of a local one."""
        return replace(self, id=_absolute(self.id, head)) if self.id.startswith(".") else self

    def licensed(self, encoder: EncoderSpec, revision: str | None) -> EncoderSpec:
        """Add the licences of the training to what a file says of this encoder, if its model card is gone since.

        Args:
            encoder: what the file says.
            revision: of the checkpoint.
        """
        is_same = revision in (self.revision, self.sha256)
        return replace(encoder, licenses=self.licenses) if is_same and not encoder.licenses else encoder


@dataclass(frozen=True)
class DataReference:
    """Where the images are that a head was trained and judged on.

    Attributes:
        folder: path of the data folder or manifest; in the file it is relative to that.
        held_out: in files of clip-toolkit 0.1 the paths of the validation and test files, relative to the folder, with
            forward slashes; later ones have ``digests`` in their place.
        text_column: heading of the manifest's column of texts, for heads that read text.
        digests: of the validation and test files, by `content_digest`.
    """

    folder: str
    held_out: tuple[str, ...] = ()
    text_column: str | None = None
    digests: tuple[str, ...] = ()

    def seen_from(self, head: Path) -> DataReference:
        """Return the reference as the file ``head`` keeps it."""
        return replace(self, folder=_relative(self.folder, head))

    def found_from(self, head: Path) -> DataReference:
        """Return the reference that the file ``head`` keeps, with an absolute path."""
        return replace(self, folder=_absolute(self.folder, head))


def content_digest(sha256: str) -> str:
    """Shorten the SHA-256 of an image file, in hexadecimal, to what a head file keeps of it.

    It tells nothing to whoever has not got the image. A digest of its name would: patients' numbers can be guessed.
    """
    return sha256[:_DIGEST_LENGTH]


def _relative(path: str, head: Path) -> str:
    try:
        found = Path(os.path.relpath(Path(path).resolve(), head.resolve().parent)).as_posix()
    except ValueError:  # on another drive of Windows
        return path
    return found if found.startswith(".") else f"./{found}"


def _absolute(path: str, head: Path) -> str:
    return os.path.normpath(head.resolve().parent / path)  # never asks the disk: the path may be hostile
