"""The model of OpenCLIP that somebody names. Without torch, so that ``--help`` need not wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from clip_toolkit.options import Option

ACTIVATION = "--open-clip-activation"


@dataclass(frozen=True)
class OpenClipModel:
    """The model of OpenCLIP that a bare file of weights belongs to.

    Attributes:
        name: of a configuration that the installed open_clip has.
        activation: of its blocks, where the configuration leaves it open.
    """

    name: Annotated[
        str,
        Option("model of a bare file of weights, such as ViT-B-32-quickgelu", "--open-clip-model", metavar="NAME"),
    ]
    activation: Annotated[
        str | None,
        Option(
            "activation of its blocks, where the model's name does not tell",
            ACTIVATION,
            choices=("quick_gelu", "gelu"),
        ),
    ] = None
