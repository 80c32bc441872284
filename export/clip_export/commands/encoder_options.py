"""The options that both commands have for the encoder."""

from __future__ import annotations

from typing import Annotated

from clip_export.encoders.bare_file import OpenClipModel
from clip_toolkit.options import Group, Option

Revision = Annotated[str | None, Option("branch, tag or commit of the encoder on the hub")]

Feature = Annotated[
    str | None,
    Option(
        "encoder output that the head reads (default: the one it was trained on, or pooled)",
        choices=("pooled", "projected"),
    ),
]

OpenClip = Annotated[
    OpenClipModel | None, Group("a bare file as --encoder", "of OpenCLIP's weights (.safetensors, .bin, .pt)")
]
