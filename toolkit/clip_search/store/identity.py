"""Whose embeddings an index holds: those of different encoders cannot be compared."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from clip_search.store.embedding import embedded
from clip_toolkit.classifier import Classifier
from clip_toolkit.errors import SearchIndexError
from clip_toolkit.spec.classifier import EncoderSpec

_PROJECTED = "projected"
"""The feature that lies in one space with text."""

_COMMIT_DIGITS = 40  # of the SHA-1 that git names commits by

_SAME_COSINE = 0.9999
"""Of the probe's embeddings, from which two files hold the same encoder in the same precision. With tiny-clip, the
resize in the graph instead of Pillow's gives 1 - 1e-8, the int8 file 0.9998."""


@dataclass(frozen=True)
class EncoderIdentity:
    """An encoder by name.

    Attributes:
        id: hub id or name of the local folder.
        revision: commit on the hub (40 digits), or SHA-256 of the content of a local folder (64); None if unknown.
        feature: ``pooled`` or ``projected``.
        dim: length of an embedding.
    """

    id: str
    revision: str | None
    feature: str
    dim: int

    @property
    def is_on_hub(self) -> bool:
        """Whether the revision is a commit, rather than the content of a local folder."""
        return self.revision is not None and len(self.revision) == _COMMIT_DIGITS

    @classmethod
    def of(cls, spec: EncoderSpec) -> EncoderIdentity:
        """Return the identity of a model file's encoder."""
        return cls(spec.id, spec.revision, spec.feature, spec.dim)

    @classmethod
    def from_json(cls, text: str) -> EncoderIdentity:
        """Read what `to_json` wrote.

        Raises:
            ValueError, TypeError: something else did.
        """
        found = cls(**json.loads(text))
        texts = isinstance(found.id, str) and isinstance(found.revision, str | None) and isinstance(found.feature, str)
        if not (texts and isinstance(found.dim, int)):
            raise TypeError(f"not an encoder's identity: {text}")
        return found

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    def __str__(self) -> str:
        """As messages call it."""
        return f"{self.id} (revision {self.revision or 'unknown'}, {self.feature}, {self.dim} numbers)"


def probe(classifier: Classifier) -> NDArray[np.float16]:
    """Return the embedding of one fixed picture, float16 ``[dim]``.

    Files with another head on the same encoder agree on it; an encoder that was fine-tuned or quantized since does not,
    though it carries the same name.
    """
    rows, columns = np.mgrid[0:96, 0:96].astype(np.int64)
    picture = np.stack([rows * columns % 256, rows * 5 % 256, columns * 7 % 256], axis=-1).astype(np.uint8)
    picture[24:72, 40:88] = (220, 40, 60)
    embedding: NDArray[np.float16] = embedded(classifier, picture).embedding.astype(np.float16)
    return embedding


def check_same(
    where: str, expected: EncoderIdentity, expected_probe: NDArray[np.float16], classifier: Classifier
) -> None:
    """Refuse a model whose embeddings cannot be compared with those of an index.

    Raises:
        SearchIndexError: another encoder, another feature of it, or other weights or precision under the same name.
    """
    found = EncoderIdentity.of(classifier.spec.encoder)
    remedy = "Name the index's model with --model, or index anew into another --index."
    if found != expected:
        raise SearchIndexError(f"{where}: holds embeddings of {expected}, and this model is {found}. {remedy}")
    cosine = _cosine(expected_probe, probe(classifier))
    if not cosine >= _SAME_COSINE:  # which a NaN is not either
        raise SearchIndexError(
            f"{where}: holds embeddings of {expected}, and this model has that name but other weights or another "
            f"precision (cosine {cosine:.4f} on a test picture, expected {_SAME_COSINE}). {remedy}"
        )


def check_shared_space(where: str, index: EncoderIdentity, text: EncoderSpec) -> None:
    """Refuse a text encoder whose space is not that of an index's images.

    Raises:
        SearchIndexError: the index holds pooled features, or the encoders differ.
    """
    if index.feature != _PROJECTED:
        raise SearchIndexError(
            f"{where}: holds {index.feature} features, which share no space with text. Train and export with "
            f"--feature {_PROJECTED} (clip-train, clip-export), and index with that model."
        )
    found = EncoderIdentity.of(text)
    if found != index:
        raise SearchIndexError(
            f"{where}: holds embeddings of {index}, and this text encoder is {found}. {_text_remedy(index)}"
        )


def _text_remedy(index: EncoderIdentity) -> str:
    if index.is_on_hub:
        return f"Make the right one: clip-export --text-tower --encoder {index.id} --revision {index.revision}"
    known = (
        "" if index.revision is not None else ", and its classifier, too, with this version, which notes the revision"
    )
    return f"Make the right one from the folder of its encoder: clip-export --text-tower --encoder {index.id}{known}"


def _cosine(one: NDArray[np.float16], other: NDArray[np.float16]) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
