"""What a user asks of quantization. Without torch, so that ``--help`` need not wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from clip_export.quantization.targets import TARGETS
from clip_toolkit.numbers import POSITIVE, SHARE
from clip_toolkit.options import Option, UsageError

MODES = ("int8", "int4", "fp16")
MINUTES = 10.0
"""Time to search for the best int8."""


@dataclass(frozen=True)
class QuantizationRequest:
    """How a file is quantized, and on which images it is tuned and judged.

    Raises:
        UsageError: options of another mode.
    """

    mode: Annotated[
        str,
        Option("int8: fastest on CPUs; int4: smallest; fp16: for GPUs (default: float32)", "--quantize", choices=MODES),
    ]
    target: Annotated[str, Option("processor that an int8 file is for; auto: this one", choices=("auto", *TARGETS))] = (
        "auto"
    )
    calibration: Annotated[
        Path | None,
        Option(
            "folder or CSV file of typical images to tune on (default: the training data, if still there)",
            parse=Path,
            metavar="DATA",
        ),
    ] = None
    evaluation: Annotated[
        Path | None,
        Option(
            "other images to judge by (default: images held out from the calibration images)",
            parse=Path,
            metavar="DATA",
        ),
    ] = None
    min_agreement: Annotated[
        float,
        Option(
            "share of the evaluation images that must keep their label; with --text-tower the lowest cosine similarity "
            "that embeddings must keep",
            parse=SHARE,
            metavar="SHARE",
        ),
    ] = 0.99
    refit: Annotated[
        Path | bool,
        Option(
            "train the head again behind the quantized encoder, on these images (default: the calibration images)",
            parse=Path,
            metavar="DIR",
            nargs="?",
            const=True,
        ),
    ] = False
    search_minutes: Annotated[
        float | None,
        Option(f"time to search for the best int8 (default: {MINUTES:g})", parse=POSITIVE, metavar="N"),
    ] = None

    all_files: Annotated[bool, Option("of a folder, take files of any suffix")] = False

    def __post_init__(self) -> None:
        """Refuse options of another mode."""
        if self.mode != "int8" and self.search_minutes is not None:
            raise UsageError("--search-minutes applies to int8 alone, which has something to search for")
        if self.mode != "int8" and self.target != "auto":
            raise UsageError("--target needs --quantize int8")
        if self.mode == "fp16" and self.refit:
            raise UsageError("--refit applies to int8 and int4; fp16 moves the features too little for it")
