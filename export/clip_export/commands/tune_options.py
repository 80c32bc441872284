"""The options of ``clip-tune``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from clip_export.commands import TUNE
from clip_export.tuning.options import Limits, TuningData
from clip_toolkit.numbers import POSITIVE
from clip_toolkit.options import Group, Option, Parser, parse_options


@dataclass(frozen=True)
class TuneCommand:
    """All options of ``clip-tune``."""

    data: Annotated[Path, Option("folder with one subfolder of images per label, or a CSV file", "DATA", parse=Path)]
    encoders: Annotated[
        tuple[str, ...],
        Option("hub ids or local folders; the choice is compared with the whole first one", "--encoder", nargs="+"),
    ]
    out: Annotated[
        Path, Option("folder for the head, the page and what an interrupted search has found", "-o --out", parse=Path)
    ] = Path("tuned")
    minutes: Annotated[float, Option("time to search, once the images are encoded", parse=POSITIVE, metavar="N")] = 10.0
    limits: Annotated[
        Limits, Group("limits", "what the file must keep to; without any, the knee of accuracy against time is chosen")
    ] = Limits()
    examples: Annotated[TuningData, Group("data")] = TuningData()
    cache: Annotated[
        Path | bool,
        Option("folder for computed features (default: in the user's cache folder)", parse=Path, metavar="DIR"),
        Option("keep no features", "--no-cache", const=False),
    ] = True


def parse_args(argv: Sequence[str] | None = None) -> TuneCommand:
    """Parse the command line; usage errors exit with code 2."""
    parser = Parser(
        prog=TUNE,
        description="Search depth, pooling, precision and head for the fastest file that still decides right on your "
        "images, and write its head.",
        epilog="docs/tuning.md walks through a search, and says how to read its page.",
    )
    return parse_options(parser, TuneCommand, argv)
