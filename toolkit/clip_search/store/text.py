"""Whether the texts of an encoder lie in one space with the images of an index."""

from __future__ import annotations

from clip_search.store.identity import PROJECTED, EncoderIdentity
from clip_toolkit.errors import SearchIndexError
from clip_toolkit.spec.classifier import EncoderSpec


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
