"""The options that both commands have for the encoder."""

from __future__ import annotations

from typing import Annotated

from clip_export.encoders.feature_names import feature_name
from clip_export.encoders.open_clip_model import OpenClipModel
from clip_toolkit.numbers import whole
from clip_toolkit.options import Group, Option

Revision = Annotated[str | None, Option("branch, tag or commit of the encoder on the hub")]

Feature = Annotated[
    str | None,
    Option(
        "what the head reads: pooled or projected output, or tokens after a block: class@6, mean@6, class+mean@6, or "
        "attention in place of mean, which clip-train learns with the head (default: what it was trained on, or "
        "pooled)",
        parse=feature_name,
        metavar="NAME",
    ),
]

InputSize = Annotated[
    int | None,
    Option(
        "input size in pixels a side, such as 160 instead of 224, for speed (default: the encoder's own)",
        parse=whole(),
        metavar="N",
    ),
]

OpenClip = Annotated[
    OpenClipModel | None, Group("a bare file as --encoder", "of OpenCLIP's weights (.safetensors, .bin, .pt)")
]
