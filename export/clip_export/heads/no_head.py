"""No head at all: an encoder's feature as the answer of a file, for heads that are trained elsewhere."""

from __future__ import annotations

from torch import nn

from clip_export.heads.files import TrainedHead
from clip_export.heads.given_head import GivenHead
from clip_toolkit.spec.classifier import NO_HEAD, HeadSpec
from clip_toolkit.spec.tasks import REGRESSION


def no_head(dim: int) -> TrainedHead:
    """Return what stands in place of a head: a regression whose values are the feature's channels, by their numbers."""
    spec = HeadSpec((dim, dim), "none", 0.0, source=NO_HEAD, form="none")
    return TrainedHead(GivenHead(nn.Identity(), spec).eval(), labels=tuple(map(str, range(dim))), task=REGRESSION)
