"""What a frozen text tower makes of the texts of a data set: each different text goes through it once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clip_export.encoders.text import TextEncoder, text_features, truncated
from clip_export.features.cache import configuration, weights_digest
from clip_export.features.images import Features
from clip_export.features.memory import memory_named
from clip_export.features.rows import RowCache

_FORMAT = 2


@dataclass(frozen=True)
class TextFeatures:
    """Features of texts.

    Attributes:
        values: float32 ``[texts, dim]``, on the CPU; not normalised.
        computed: how many different texts the tower had to be run for.
        different: how many there are.
        cut: how many texts go beyond the context, so that only their beginning is read.
        empty: how many are empty.
    """

    values: Tensor
    computed: int
    different: int
    cut: int
    empty: int

    @property
    def notes(self) -> Iterator[str]:
        """What the user should know, one line each."""
        if self.cut:
            yield f"{self.cut} of {len(self.values)} texts are too long for the text tower: their ends are left out"
        if self.empty:
            yield f"{self.empty} of {len(self.values)} texts are empty"


def tower_identity(tower: TextEncoder) -> dict[str, object]:
    """Everything about a text tower that decides its features."""
    modules = [tower.model] + ([tower.projection] if tower.projection is not None else [])
    return {
        "format": _FORMAT,
        "text tower": Path(tower.id).name,
        "revision": tower.revision,
        "weights": weights_digest(modules),
        "configuration": configuration(tower.model.config),
        "tokenizer": hashlib.sha256(_tokenizer_text(tower.tokenizer).encode()).hexdigest(),
        "context": tower.context,
    }


def _tokenizer_text(tokenizer: Any) -> str:
    """All that decides about tokens. Truncation and padding are noted in a fast tokenizer by every call of it."""
    if not tokenizer.is_fast:
        return f"{type(tokenizer).__name__} {sorted(tokenizer.get_vocab().items())}"
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    return json.dumps({name: rule for name, rule in rules.items() if name not in ("truncation", "padding")})


class TextCache(RowCache):
    """The features of one text tower on disk, beside those of image encoders."""

    def __init__(self, base: Path, tower: TextEncoder) -> None:
        """Open the cache of a text tower below ``base``."""
        super().__init__(base, tower_identity(tower), (tower.dim,))


class TextSide(NamedTuple):
    """The text tower that reads a data set's texts, and where its features are kept, if anywhere."""

    tower: TextEncoder
    cache: TextCache | None


def encoded_texts(
    tower: TextEncoder,
    texts: Sequence[str],
    batch_size: int = 64,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda _: None,
    *,
    cache: RowCache | None = None,
) -> TextFeatures:
    """Run the text tower over texts.

    Args:
        tower: the text tower; it is moved to ``device``.
        texts: any text, the empty one included.
        batch_size: texts per run.
        device: a PyTorch device.
        progress: called with the number of different texts just done.
        cache: where features are looked up and kept.

    Raises:
        DeviceError: the device has too little memory for ``batch_size`` texts.
    """
    found = {text: cache.get(_key(text)) if cache is not None else None for text in texts}
    rows = {text: torch.from_numpy(row.copy()) for text, row in found.items() if row is not None}
    # Texts of about one length share a batch, so that little padding is computed.
    missing = sorted((text for text in found if text not in rows), key=lambda text: (len(text), text))
    progress(len(rows))
    rows |= _computed(tower, missing, batch_size, device, progress, cache=cache)
    return TextFeatures(
        values=torch.stack([rows[text] for text in texts]),
        computed=len(missing),
        different=len(found),
        cut=len(truncated(tower, texts)),
        empty=sum(not text.strip() for text in texts),
    )


def fused(features: Features, texts: Tensor) -> Features:
    """Features of images, and behind each that of its text, of ``[n, text dim]``: ``[n, image dim + text dim]``."""
    return replace(features, values=torch.cat([features.values, texts], dim=1))


def _computed(
    tower: TextEncoder,
    texts: Sequence[str],
    batch_size: int,
    device: str,
    progress: Callable[[int], None],
    *,
    cache: RowCache | None,
) -> dict[str, Tensor]:
    rows: dict[str, Tensor] = {}
    try:
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            rows |= zip(batch, _run(tower, batch, device), strict=True)
            progress(len(batch))
            if cache is not None:
                for text in batch:
                    cache.put(_key(text), rows[text].numpy())
    finally:
        if cache is not None:
            cache.flush()
    return rows


def _run(tower: TextEncoder, texts: Sequence[str], device: str) -> Tensor:
    with memory_named(device, len(texts), "texts"):
        return text_features(tower.to(device), texts, len(texts))


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
