"""The options of ``clip-scale``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from clip_scale.batch_classifier import EMBEDDINGS
from clip_scale.columns import Columns
from clip_scale.commands import PROGRAM
from clip_scale.running import FORMS
from clip_scale.sources.labelled import LABEL
from clip_scale.sources.source import PART_SIZE
from clip_toolkit.commands.running_options import (
    MODEL_HELP,
    MOST,
    AllFiles,
    ClassifyingOptions,
    DecodingOptions,
    Verify,
)
from clip_toolkit.images.sources import is_url
from clip_toolkit.numbers import NOT_NEGATIVE, whole
from clip_toolkit.options import Group, Option, Parser, UsageError, parse_command

ENGINES = ("local", "ray")

_EPILOG = (
    f"{MODEL_HELP} Exit code: 0 all fine, 1 some images failed or nothing could run, 2 usage error, 130 and 143 "
    "interrupted."
)


@dataclass(frozen=True)
class EngineOptions:
    """Who does the work."""

    engine: Annotated[str, Option("processes of this machine, or a Ray cluster", choices=ENGINES)] = "local"
    workers: Annotated[
        int | None,
        Option("worker processes, of Ray at most (default: one for each core)", parse=whole(most=2**16), metavar="N"),
    ] = None
    address: Annotated[
        str | None, Option("of the Ray cluster (default: $RAY_ADDRESS, or one on this machine)", metavar="ADDRESS")
    ] = None
    num_gpus: Annotated[float, Option("GPUs of each worker of Ray", parse=NOT_NEGATIVE, metavar="N")] = 0.0

    def __post_init__(self) -> None:
        """Refuse options of another engine."""
        if self.engine != "ray" and (self.address or self.num_gpus):
            raise UsageError("--address and --num-gpus go with --engine ray")


@dataclass(frozen=True)
class ColumnOptions:
    """Columns of manifests."""

    bytes_column: Annotated[str, Option("Parquet column of the bytes of images", metavar="NAME")] = Columns.bytes
    path_column: Annotated[str, Option("Parquet column of their paths", metavar="NAME")] = Columns.path


@dataclass(frozen=True)
class ManifestOptions(ColumnOptions):
    """Columns of manifests of what is classified."""

    text_column: Annotated[
        str | None, Option("column of the texts, for a model that reads one with each image", metavar="NAME")
    ] = None


@dataclass(frozen=True)
class LabelOptions(ColumnOptions):
    """Columns of manifests of what is learnt from."""

    label_column: Annotated[str, Option("column of the labels", metavar="NAME")] = LABEL


@dataclass(frozen=True)
class PartOptions:
    """How part files are written."""

    part_size: Annotated[
        int, Option("images per part, a multiple of the batch size", parse=whole(most=2**20), metavar="N")
    ] = PART_SIZE
    max_errors: Annotated[
        int | None, Option("stop when more images than this have failed", parse=whole(0), metavar="N")
    ] = None
    resume: Annotated[bool, Option("continue the run that SINK holds")] = False
    quiet: Annotated[bool, Option("no progress, no summary; errors and warnings stay")] = False


@dataclass(frozen=True)
class SinkOptions(PartOptions):
    """What is written."""

    format: Annotated[str, Option("format of the part files", choices=FORMS)] = "parquet"
    top_k: Annotated[int, Option("labels per image", parse=whole(most=MOST), metavar="N")] = 3
    embedding: Annotated[str | None, Option("also write the embeddings", choices=EMBEDDINGS)] = None


@dataclass(frozen=True)
class SourceOptions:
    """What is read, by whom, and how.

    Raises:
        UsageError: some of them do not go together.
    """

    source: Annotated[
        tuple[str, ...],
        Option(
            "image files, folders (searched recursively), patterns such as 'photos/**/*.jpg', CSV and Parquet "
            "manifests, tar files; for features one folder with a subfolder for each label, or manifests",
            "SOURCE",
            nargs="+",
        ),
    ]
    sink: Annotated[Path, Option("folder of the part files", "SINK", parse=Path)]
    all_files: AllFiles = False
    verify: Verify = None
    engine: Annotated[EngineOptions, Group("engine")] = EngineOptions()
    running: Annotated[ClassifyingOptions, Group("running")] = ClassifyingOptions()
    decoding: Annotated[DecodingOptions, Group("decoding")] = DecodingOptions()
    output: Annotated[PartOptions, Group("output")] = PartOptions()

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        if self.verify is not None and is_url(self.running.model or ""):
            raise UsageError("--verify: goes with a model file of this machine, not with a URL")
        if self.output.part_size % self.running.batch_size:
            raise UsageError(f"--part-size: expected a multiple of the batch size, {self.running.batch_size}")


@dataclass(frozen=True)
class RunOptions(SourceOptions):
    """All options of ``clip-scale run``."""

    manifest: Annotated[ManifestOptions, Group("manifests")] = ManifestOptions()
    output: Annotated[SinkOptions, Group("output")] = SinkOptions()


@dataclass(frozen=True)
class FeaturesOptions(SourceOptions):
    """All options of ``clip-scale features``."""

    manifest: Annotated[LabelOptions, Group("manifests")] = LabelOptions()


ScaleOptions: TypeAlias = RunOptions | FeaturesOptions

_COMMANDS: dict[str, tuple[type[ScaleOptions], str]] = {
    "run": (RunOptions, "classify a source into a folder of part files"),
    "features": (FeaturesOptions, "write features and labels for clip-train, by a file of clip-export --encoder-only"),
}


def parse_args(argv: Sequence[str] | None = None) -> ScaleOptions:
    """Parse the command line; usage errors exit with code 2."""
    parser = Parser(prog=PROGRAM, description="Classify more images than one process should.", epilog=_EPILOG)
    return parse_command(parser, _COMMANDS, argv)
