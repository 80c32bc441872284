"""The options of ``clip-infer``, and which of them go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from clip_toolkit.commands import PROGRAM
from clip_toolkit.commands.running_options import (
    MODEL_HELP,
    MOST,
    AllFiles,
    ClassifyingOptions,
    DecodingOptions,
    IsolationOptions,
    QuoteFormulas,
    Verify,
)
from clip_toolkit.numbers import POSITIVE, whole
from clip_toolkit.options import Group, Option, Parser, UsageError, parse_options
from clip_toolkit.runtime.isolation_limits import Limits
from clip_toolkit.runtime.plugins import ALL_DEVICES, FASTEST
from clip_toolkit.spec.tasks import WAYS
from clip_toolkit.stream.inputs import STDIN
from clip_toolkit.stream.records import FORMATS

ACTIONS = "--describe, --selftest, --doctor, --prepare"
"""What is done instead of classifying."""


@dataclass(frozen=True)
class InferRunningOptions(ClassifyingOptions):
    """The same, of ``clip-infer``."""

    device: Annotated[
        str,
        Option(
            f"where to run; {FASTEST}: measure what is installed on the model's golden pictures, and remember",
            choices=(*ALL_DEVICES, FASTEST),
        ),
    ] = "auto"


@dataclass(frozen=True)
class TextOptions:
    """The texts of a model that reads one with each image."""

    text: Annotated[str | None, Option("text that goes with every IMAGE", metavar="TEXT")] = None
    texts: Annotated[
        Path | None,
        Option(
            "instead of IMAGE: CSV file with the columns path (relative to the file's folder) and text",
            parse=Path,
            metavar="FILE",
        ),
    ] = None
    column: Annotated[
        str | None, Option("name of its text column (default: text)", "--text-column", metavar="NAME")
    ] = None


@dataclass(frozen=True)
class FrameOptions:
    """Videos, frame by frame."""

    frames: Annotated[
        tuple[str, ...], Option("instead of IMAGE: videos, whose frames are classified", nargs="+", metavar="VIDEO")
    ] = ()
    fps: Annotated[float, Option("frames a second, at most (default: 1)", parse=POSITIVE, metavar="N")] = 1.0


@dataclass(frozen=True)
class OutputOptions:
    """Where the records go."""

    given_format: Annotated[
        str | None,
        Option("output format (default: table, or what FILE's suffix says)", "--format", choices=FORMATS),
    ] = None
    top_k: Annotated[int, Option("labels per image", parse=whole(most=MOST), metavar="N")] = 3
    output: Annotated[
        Path | None, Option("write to a file, whole or not at all", "-o --output", parse=Path, metavar="FILE")
    ] = None
    reject_novel: Annotated[
        bool, Option("give no label to images unlike the training images (files of clip-train --novelty)")
    ] = False
    resume: Annotated[bool, Option("continue from FILE.part, which an interrupted run has left")] = False
    quote_formulas: QuoteFormulas = False
    quiet: Annotated[bool, Option("no line on the device, no progress; errors and warnings stay")] = False

    @property
    def format(self) -> str:
        """The format that was asked for, else that of the output's suffix, else a table."""
        suffix = self.output.suffix.lower().removeprefix(".") if self.output else ""
        return self.given_format or (suffix if suffix in FORMATS else "table")


@dataclass(frozen=True)
class ExplainOptions:
    """Pictures of what speaks for the labels."""

    explain: Annotated[
        Path | None,
        Option("write what speaks for each label, laid over its image, to a new folder", parse=Path, metavar="DIR"),
    ] = None
    explain_by: Annotated[
        str | None,
        Option(
            "the file's own maps (files of clip-export --explain), or those found by covering 49 parts of each image, "
            f"one by one, which works with every file (default: {WAYS[0]})",
            choices=WAYS,
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuse a way to explain where nothing is explained."""
        if self.explain_by is not None and self.explain is None:
            raise UsageError("--explain-by needs --explain DIR")


@dataclass(frozen=True)
class ActionOptions:
    """What is done instead of classifying; the value is the model file, empty for the usual one."""

    describe: Annotated[str | None, Option("print what the model file says", metavar="MODEL", nargs="?", const="")] = (
        None
    )
    selftest: Annotated[
        str | None, Option("replay the model's golden vectors", metavar="MODEL", nargs="?", const="")
    ] = None
    doctor: Annotated[
        str | None, Option("check this machine and installation", metavar="MODEL", nargs="?", const="")
    ] = None
    prepare: Annotated[
        str | None,
        Option(
            "keep the weights in the cache folder as this processor wants them: the model then opens sooner, and "
            "processes share them",
            metavar="MODEL",
            nargs="?",
            const="",
        ),
    ] = None

    @property
    def chosen(self) -> tuple[str, str] | None:
        """The action and its model, if there is one."""
        return next(
            ((field.name, value) for field in fields(self) if (value := getattr(self, field.name)) is not None), None
        )

    def __post_init__(self) -> None:
        """Refuse several."""
        given = [f"--{field.name}" for field in fields(self) if getattr(self, field.name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} do not go together")


@dataclass(frozen=True)
class InferOptions:
    """All options of ``clip-infer``.

    Raises:
        UsageError: some of them do not go together.
    """

    images: Annotated[
        tuple[str, ...],
        Option(
            "image files, folders (searched recursively), patterns such as 'photos/**/*.jpg', or - for the bytes of "
            "one image on standard input",
            "IMAGE",
            nargs="*",
        ),
    ] = ()
    stdin_paths: Annotated[bool, Option("read more of these from standard input, one per line")] = False
    all_files: AllFiles = False
    text: Annotated[TextOptions, Group("text, for models that read one with each image")] = TextOptions()
    video: Annotated[FrameOptions, Group("video")] = FrameOptions()
    running: Annotated[InferRunningOptions, Group("running")] = InferRunningOptions()
    decoding: Annotated[DecodingOptions, Group("decoding")] = DecodingOptions()
    isolation: Annotated[IsolationOptions | None, Group("isolation, for images from strangers (Linux)")] = None
    output: Annotated[OutputOptions, Group("output")] = OutputOptions()
    explaining: Annotated[ExplainOptions, Group("explaining")] = ExplainOptions()
    actions: Annotated[ActionOptions, Group("instead of classifying")] = ActionOptions()
    verify: Verify = None

    @property
    def limits(self) -> Limits | None:
        """The limits of isolated decoding, if it is asked for."""
        return self.isolation.limits if self.isolation else None

    @property
    def model(self) -> str | None:
        """The model file that was named, by whatever option."""
        return (self.actions.chosen and self.actions.chosen[1]) or self.running.model

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        has_images = bool(self.images or self.stdin_paths or self.text.texts or self.video.frames)
        if self.actions.chosen is not None:
            self._check_action(has_images)
        elif not has_images:
            raise UsageError(f"name at least one IMAGE, or use --stdin-paths, --texts, --frames, or one of {ACTIONS}")
        self._check_text()
        self._check_video()
        if self.explaining.explain is not None:
            self._check_explained()
        if self.stdin_paths and STDIN in self.images:
            raise UsageError("- and --stdin-paths both read standard input: use one of them")
        if self.images.count(STDIN) > 1:
            raise UsageError("- can be read only once")
        if self.output.resume and not self.output.output:
            raise UsageError("--resume continues a file: name it with --output")
        if self.output.format == "parquet" and not self.output.output:
            raise UsageError("Parquet is a binary format: pass --output FILE")

    def _check_action(self, has_images: bool) -> None:
        if has_images or self.output.output or self.text.text is not None:
            raise UsageError(f"{ACTIONS} take a model file, no images, no text, no --output")
        if self.output.format not in ("table", "json"):
            raise UsageError(f"{ACTIONS} have the formats table and json")
        running = self.running
        if self.actions.prepare is not None and (running.device not in ("auto", "cpu") or running.max_memory):
            raise UsageError("--prepare is for the CPU, without --max-memory: weights laid out anew count for that")

    def _check_explained(self) -> None:
        if self.actions.chosen is not None:
            raise UsageError(f"--explain goes with images, not with {ACTIONS}")
        if self.video.frames or STDIN in self.images:
            raise UsageError("--explain opens each image a second time: name files or folders, not - or --frames")
        if self.isolation or self.output.resume:
            raise UsageError("--explain opens the images itself, from the first on: leave out --isolate and --resume")

    def _check_text(self) -> None:
        if self.text.texts and (self.images or self.stdin_paths or self.text.text is not None):
            raise UsageError("--texts names the images and their texts: leave out IMAGE, --stdin-paths and --text")
        if self.text.column and not self.text.texts:
            raise UsageError("--text-column names a column of --texts FILE")

    def _check_video(self) -> None:
        if not self.video.frames:
            return
        if self.images or self.stdin_paths or self.text.texts:
            raise UsageError("--frames names the videos: leave out IMAGE, --stdin-paths and --texts")
        if self.isolation:
            raise UsageError("--isolate does not cover the decoding of videos: use a container, or leave out --frames")


def parse_args(argv: Sequence[str] | None = None) -> InferOptions:
    """Parse the command line; usage errors exit with code 2."""
    parser = Parser(
        prog=PROGRAM,
        description="Classify images with a model file made by clip-export.",
        epilog=f"{MODEL_HELP} Exit code: 0 all fine, 1 some inputs failed or nothing could run, 2 usage error, "
        "130 and 143 interrupted, 141 the reader of the output has gone.",
    )
    return parse_options(parser, InferOptions, argv)
