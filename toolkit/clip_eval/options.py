"""The options of ``clip-eval``, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from clip_toolkit.commands.running_options import MOST, AllFiles, DeviceOptions, Verify
from clip_toolkit.data.dataset import TEST, TRAIN, VALIDATION
from clip_toolkit.judging.thresholds import RULES, OperatingRule
from clip_toolkit.numbers import SHARE, number, whole
from clip_toolkit.options import Group, Option, UsageError
from clip_toolkit.stream.text_table import TEXT_COLUMN

ALL = "all"


@dataclass(frozen=True)
class RunningOptions(DeviceOptions):
    """How images run through the models."""

    batch_size: Annotated[int, Option("images per run", parse=whole(most=MOST), metavar="N")] = 8


@dataclass(frozen=True)
class CopyOptions:
    """A copy of the model file, and what is chosen for it on the images."""

    output: Annotated[
        Path | None,
        Option("write a copy of MODEL, with what is chosen on these images", "-o --output", parse=Path, metavar="FILE"),
    ] = None
    threshold: Annotated[
        OperatingRule | None,
        Option(f"its operating point: {RULES}", parse=OperatingRule.parse, metavar="RULE"),
    ] = None
    coverage: Annotated[
        float | None,
        Option(
            "sets of labels that hold the right one for this share of further images (0.9 if none is named)",
            parse=number("above 0 and below 1", lambda value: 0 < value < 1),
            nargs="?",
            const=0.9,
            metavar="SHARE",
        ),
    ] = None

    reference: Annotated[bool, Option("statistics of what the model says of these images, for --drift")] = False

    def __post_init__(self) -> None:
        """Ask for what to change."""
        if self.threshold is None and self.coverage is None and not self.reference:
            raise UsageError("--output writes a copy: say with what (--threshold, --coverage or --reference)")
        if self.threshold is not None and self.reference:
            raise UsageError(
                "--reference: counts what is decided by a threshold; choose that first, in a copy of its own"
            )


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """All options of ``clip-eval``.

    Raises:
        UsageError: some of them do not go together.
    """

    model: Annotated[Path, Option("model file", "MODEL", parse=Path)]
    other: Annotated[
        Path | None, Option("second model file, to compare on the same images", "OTHER", parse=Path, nargs="?")
    ] = None
    data: Annotated[
        Path,
        Option(
            "images and their labels: a folder with one subfolder a label, or a CSV file or JSON lines as of "
            "clip-train (columns path and label)",
            "DATA",
            parse=Path,
        ),
    ]
    drift: Annotated[
        bool,
        Option(
            "tell instead whether images without labels are still like the reference images of MODEL; DATA is a folder "
            "of images, or what clip-infer --format jsonl wrote of them"
        ),
    ] = False
    side: Annotated[
        str | None,
        Option(
            "side of DATA to evaluate on (default: test, or val if there is none; all where DATA names no sides)",
            choices=(TEST, VALIDATION, TRAIN, ALL),
        ),
    ] = None
    slices: Annotated[
        tuple[str, ...],
        Option("figures for each value of these columns of DATA", "--slice", nargs="+", metavar="COLUMN"),
    ] = ()
    text_column: Annotated[
        str | None,
        Option(f"column of texts, for a model that reads one with each image (default: {TEXT_COLUMN})", metavar="NAME"),
    ] = None
    sensitivity: Annotated[
        tuple[float, ...],
        Option(
            "operating points to show, by the sensitivity that they reach (default: 0.9 0.95 0.99)",
            parse=SHARE,
            nargs="+",
            metavar="SHARE",
        ),
    ] = (0.9, 0.95, 0.99)
    positive: Annotated[
        str | None,
        Option("of two labels the one to detect (default: that of the threshold, or the last)", metavar="LABEL"),
    ] = None
    mistakes: Annotated[int, Option("mistakes to list, the most confident first", parse=whole(0), metavar="N")] = 10
    all_files: AllFiles = False
    verify: Verify = None
    running: Annotated[RunningOptions, Group("running")] = RunningOptions()
    json: Annotated[bool, Option("print JSON")] = False
    report: Annotated[Path | None, Option("write one HTML page as well", parse=Path, metavar="FILE")] = None
    copy: Annotated[CopyOptions | None, Group("a copy of the model file")] = None

    @property
    def models(self) -> list[Path]:
        """The model file, or both."""
        return [self.model, *([] if self.other is None else [self.other])]

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        if self.copy and self.other:
            raise UsageError("--output: copies one model: leave OTHER out")
        if self.copy and self.copy.output and self.copy.output.resolve() == self.model.resolve():
            raise UsageError("--output: is MODEL itself; the copy needs a name of its own")
        if self.drift and (self.copy or self.other or self.side or self.slices or self.text_column or self.positive):
            raise UsageError("--drift: goes with MODEL, DATA, --json, --report, --all-files and running options alone")
        if 0 in self.sensitivity:
            raise UsageError("--sensitivity: expected shares above 0 and up to 1")
