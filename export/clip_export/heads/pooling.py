"""The learnt pooling of a head: a part of its file, and once it is read a part of the encoder before it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from torch import Tensor

from clip_export.encoders.image import Encoder
from clip_export.heads.files import TrainedHead
from clip_toolkit.errors import HeadError


def with_pooling(encoder: Encoder, head: TrainedHead) -> Encoder:
    """Return the encoder with the query that was learnt with a head; unchanged if none was.

    Raises:
        HeadError: the encoder reads a learnt pooling and the head has none, or was learnt on another feature.
    """
    tokens = encoder.tokens if encoder.tokens is not None and encoder.tokens.is_learnt else None
    if head.pooling is None:
        if tokens is not None:
            raise HeadError(
                f"no head holds a learnt pooling for the {encoder.feature} feature. Train one with clip-train "
                f"--feature {encoder.feature}, or use --feature {tokens.unlearnt}."
            )
        return encoder
    trained = encoder.feature if head.encoder is None else head.encoder.feature
    if tokens is None or encoder.feature != trained:
        raise HeadError(
            f"the head has learnt its pooling for {trained}, not for {encoder.feature}. Leave out --feature."
        )
    if head.pooling.shape != (encoder.blocks.width,):
        raise HeadError(
            f"the head's pooling is of shape {list(head.pooling.shape)}, expected [{encoder.blocks.width}], the width "
            f"of {encoder.id}. Name the encoder that it was trained on."
        )
    return learnt_pooling(encoder, head.pooling)


def learnt_pooling(encoder: Encoder, query: Tensor) -> Encoder:
    """Return the encoder with a learnt query.

    Its revision becomes a SHA-256 of both: its features are no longer those of the one that its id names.
    """
    both = f"{encoder.revision} {encoder.feature}".encode() + query.contiguous().numpy().tobytes()
    return replace(encoder, query=query, revision=hashlib.sha256(both).hexdigest())
