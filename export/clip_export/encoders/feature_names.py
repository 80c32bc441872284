"""What a head may read of an encoder, by name. Without torch, so that ``--help`` need not wait for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

POOLED, PROJECTED = "pooled", "projected"
POOLINGS = ("class", "mean", "class+mean")
"""Of the tokens after a block: the class token, the mean of the patches' tokens, or both, one behind the other."""

FEATURES = f"{POOLED}, {PROJECTED} or {', '.join(f'{pooling}@BLOCK' for pooling in POOLINGS)}"
"""What names there are, for people."""


@dataclass(frozen=True)
class TokenFeature:
    """A feature of any depth: tokens after a block, pooled, and each normalised by a plain layer normalisation.

    Attributes:
        poolings: ``class``, ``mean`` or both.
        depth: how many blocks are computed.
    """

    poolings: tuple[str, ...]
    depth: int

    def __str__(self) -> str:
        """Return its name, such as ``class+mean@6``."""
        return f"{'+'.join(self.poolings)}@{self.depth}"


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
