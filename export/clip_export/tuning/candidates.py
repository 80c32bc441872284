"""What is searched: features of encoders, precisions and heads, and what was found of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from clip_export.encoders.feature_names import POOLED, TokenFeature, token_feature
from clip_export.encoders.image import Encoder
from clip_export.encoders.tokens import poolings_of
from clip_toolkit.judging.figures import Interval

FLOAT32, INT8 = "float32", "int8"


@dataclass(frozen=True)
class Found:
    """A candidate, and what was found of it.

    Attributes:
        encoder: name of the encoder.
        feature: as in `Encoder`.
        precision: `FLOAT32` or `INT8`.
        head: a name of `clip_export.tuning.heads.HEADS`.
        accuracy: share of right decisions in cross-validation, with its 95 % interval.
        latency: seconds for one image in a batch of its own, or None before it was measured.
        size: bytes of the file without its proof, likewise.
    """

    encoder: str
    feature: str
    precision: str
    head: str
    accuracy: Interval
    latency: float | None = None
    size: int | None = None

    def __str__(self) -> str:
        """Return what it is, in words."""
        return f"{self.encoder} {self.feature} {self.precision}"

    @property
    def key(self) -> str:
        """Name of its results."""
        return f"{self} {self.head}"

    @property
    def seconds(self) -> float:
        """The latency of a candidate that was measured."""
        assert self.latency is not None
        return self.latency

    @property
    def bytes(self) -> int:
        """The size, likewise."""
        assert self.size is not None
        return self.size


def features_of(encoder: Encoder) -> Iterator[str]:
    """Names of the features of an encoder: the tower's own, and those of all depths, the shallow ones first."""
    yield POOLED
    names = poolings_of(encoder.family.image)
    poolings = [(name,) for name in names] + ([names] if len(names) > 1 else [])
    for depth in range(1, encoder.blocks.depth + 1):
        for pooling in poolings:
            yield str(TokenFeature(pooling, depth))


def depth_of(feature: str) -> int | None:
    """Return how many blocks a feature needs, or None for all."""
    tokens = token_feature(feature)
    return None if tokens is None else tokens.depth


def reading(encoder: Encoder, feature: str) -> Encoder:
    """Return the encoder with another feature that needs no projection."""
    return replace(encoder, feature=feature, projection=None)
