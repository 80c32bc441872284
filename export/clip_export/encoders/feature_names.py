"""What a head may read of an encoder, by name. Without torch, so that ``--help`` need not wait for it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

POOLED, PROJECTED = "pooled", "projected"
ATTENTION = "attention"
POOLINGS = ("class", "mean", ATTENTION, "class+mean", f"class+{ATTENTION}")
"""Of the tokens after a block: the class token, the mean of the patches' tokens, what a query that is learnt with the
head reads of them, or the class token and behind it one of the others."""

FEATURES = f"{POOLED}, {PROJECTED} or {', '.join(f'{pooling}@BLOCK' for pooling in POOLINGS)}"
"""What names there are, for people."""


@dataclass(frozen=True)
class TokenFeature:
    """A feature of any depth: tokens after a block, pooled, and each normalised by a plain layer normalisation.

    Attributes:
        poolings: one or two, as in `POOLINGS`.
        depth: how many blocks are computed.
    """

    poolings: tuple[str, ...]
    depth: int

    def __str__(self) -> str:
        """Return its name, such as ``class+mean@6``."""
        return f"{'+'.join(self.poolings)}@{self.depth}"

    @property
    def is_learnt(self) -> bool:
        """Whether a query, learnt with the head, weighs the patches."""
        return ATTENTION in self.poolings

    @property
    def unlearnt(self) -> TokenFeature:
        """The feature with equal weights: the mean in place of what a query reads."""
        return replace(self, poolings=tuple("mean" if name == ATTENTION else name for name in self.poolings))


def token_feature(name: str) -> TokenFeature | None:
    """Return the feature of a depth that a name stands for; None for the tower's own output, pooled or projected.

    Raises:
        ValueError: no feature has this name.
    """
    if name in (POOLED, PROJECTED):
        return None
    pooling, _, depth = name.partition("@")
    if pooling not in POOLINGS or not re.fullmatch("[1-9][0-9]{0,3}", depth):
        raise ValueError(f"expected {FEATURES}, got {name!r}")
    return TokenFeature(tuple(pooling.split("+")), int(depth))


def feature_name(text: str) -> str:
    """Check the name of a feature, and return it.

    Raises:
        ValueError: no feature has this name.
    """
    token_feature(text)
    return text
