"""What a search by words needs of a text encoder; `clip_toolkit.load_text` gives one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.errors import SearchIndexError
from clip_toolkit.search.identity import PROJECTED, EncoderIdentity
from clip_toolkit.spec import EncoderSpec


class TextSpec(Protocol):
    """What a text encoder says of itself."""

    @property
    def encoder(self) -> EncoderSpec:
        """The encoder whose images and texts share a space."""


class TextEncoder(Protocol):
    """Texts in, embeddings out."""

    @property
    def spec(self) -> TextSpec:
        """What it says of itself."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 ``[texts, dim]``, of L2 norm 1."""


def check_shared_space(where: str, index: EncoderIdentity, text: EncoderSpec) -> None:
    """Refuse a text encoder whose space is not that of an index's images.

    Raises:
        SearchIndexError: the index holds pooled features, or the encoders differ.
    """
    if index.feature != PROJECTED:
        raise SearchIndexError(
            f"{where}: holds {index.feature} features, which share no space with text. Train and export with "
            f"--feature {PROJECTED} (clip-train, clip-export), and index with that model."
        )
    found = EncoderIdentity.of(text)
    if found != index:
        raise SearchIndexError(
            f"{where}: holds embeddings of {index}, and this text encoder is {found}. {_remedy(index)}"
        )


def _remedy(index: EncoderIdentity) -> str:
    if index.is_on_hub:
        return f"Make the right one: clip-export --text-tower --encoder {index.id} --revision {index.revision}"
    known = (
        "" if index.revision is not None else ", and its classifier, too, with this version, which notes the revision"
    )
    return f"Make the right one from the folder of its encoder: clip-export --text-tower --encoder {index.id}{known}"
