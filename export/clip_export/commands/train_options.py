"""The options of ``clip-train``, and which of them go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from clip_export.commands import TRAIN
from clip_export.commands.encoder_options import Feature, InputSize, OpenClip, Revision
from clip_export.encoders.feature_names import POOLED, PROJECTED, token_feature
from clip_export.training.finetuning.options import FinetuningOptions
from clip_export.training.options import DataOptions, TrainingOptions
from clip_toolkit.judging.thresholds import RULES, OperatingRule
from clip_toolkit.numbers import NOT_NEGATIVE, POSITIVE, number
from clip_toolkit.options import Group, Option, Parser, UsageError, parse_options
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION
from clip_toolkit.stream.feature_table import holds_features

_RATE = TrainingOptions.learning_rate
_NOVEL_SHARE = 0.05  # as where others measure: their figures let 95 % of familiar images pass
_START_RATE = 1e-2  # a pull holds the head; with a few images 1e-4 would get nowhere in 100 epochs, least at random


@dataclass(frozen=True)
class FeatureOptions:
    """How images are encoded."""

    device: Annotated[str, Option("auto, or a PyTorch device such as cpu or cuda")] = "auto"
    cache: Annotated[
        Path | bool,
        Option("folder for computed features (default: in the user's cache folder)", parse=Path, metavar="DIR"),
        Option("keep no features", "--no-cache", const=False),
    ] = True


@dataclass(frozen=True)
class StartOptions:
    """Where a linear head begins."""

    kind: Annotated[
        str,
        Option(
            "start a linear head from the text embeddings of the labels, if that helps",
            "--init",
            choices=("zero-shot",),
        ),
    ]
    templates: Annotated[
        tuple[str, ...] | None,
        Option("prompts with {} for the label (default: 'a photo of a {}')", nargs="+", metavar="TEXT"),
    ] = None
    pull: Annotated[
        float | None,
        Option(
            "strength that holds the head to its zero-shot start (default: the best of 100, 10 and 1)",
            parse=NOT_NEGATIVE,
            metavar="N",
        ),
    ] = None
    train_projection: Annotated[
        bool,
        Option("also try to train the encoder's visual projection; if that is best, the encoder is saved, too"),
    ] = False


@dataclass(frozen=True)
class JudgingOptions:
    """How the head decides, and what is written about it."""

    calibrate: Annotated[bool, Option("leave the temperature at 1", "--no-calibration", const=False)] = True
    operating_point: Annotated[
        OperatingRule, Option(f"how thresholds are chosen: {RULES}", parse=OperatingRule.parse, metavar="RULE")
    ] = OperatingRule()
    positive: Annotated[str | None, Option("of two labels the one to detect (default: the last)", metavar="LABEL")] = (
        None
    )
    novelty: Annotated[
        float | None,
        Option(
            f"let the file tell images unlike the training images; SHARE of the familiar ones are to be taken for such "
            f"(default: {_NOVEL_SHARE})",
            parse=number("above 0 and below 1", lambda share: 0 < share < 1),
            nargs="?",
            const=_NOVEL_SHARE,
            metavar="SHARE",
        ),
    ] = None
    report: Annotated[Path | None, Option("write figures and an HTML page", parse=Path, metavar="DIR")] = None
    tensorboard: Annotated[Path | None, Option("write curves for TensorBoard", parse=Path, metavar="DIR")] = None
    explain_preprocessing: Annotated[
        Path | None,
        Option("train nothing: draw how the encoder sees an image", parse=Path, metavar="IMAGE"),
    ] = None


@dataclass(frozen=True)
class TrainCommand:
    """All options of ``clip-train``.

    Raises:
        UsageError: some of them do not go together.
    """

    encoder: Annotated[
        str,
        Option("hub id or local folder, in transformers or OpenCLIP format, or of a LoRA adapter; or a bare file"),
    ]
    data: Annotated[
        Path | None,
        Option(
            "folder with one subfolder of images per label, a CSV file, or features of clip-scale (Parquet)",
            "DATA",
            parse=Path,
            nargs="?",
        ),
    ] = None
    out_file: Annotated[
        Path | None,
        Option(
            "head file, .pt or .safetensors (default: head.pt); with --explain-preprocessing a PNG file",
            "-o --out",
            parse=Path,
            metavar="FILE",
        ),
    ] = None
    examples: Annotated[DataOptions, Group("data")] = DataOptions()
    features: Annotated[FeatureOptions, Group("features")] = FeatureOptions()
    learning: Annotated[TrainingOptions, Group("head and training")] = TrainingOptions()
    rate: Annotated[
        float | None,
        Option(f"learning rate (default: {_RATE:g}, with --init {_START_RATE:g})", "--lr", parse=POSITIVE),
    ] = None
    sweep: Annotated[bool, Option("first try learning rates, weight decays and widths")] = False
    resume: Annotated[bool, Option("continue from the checkpoint of an interrupted run")] = False
    start: Annotated[
        StartOptions | None,
        Group(
            "start from words",
            without={
                "--hidden-dim": "words make a linear head",
                "--activation": "it follows hidden layers",
                "--dropout": "it follows hidden layers",
                "--standardise": "",
                "--feature-norm": "a head made of words divides by it",
                "--text-column": "words describe images alone",
                "--unfreeze": "",
                "--sweep": "",
                "--resume": "",
                "--tensorboard": "",
            },
        ),
    ] = None
    tuning: Annotated[
        FinetuningOptions | None,
        Group(
            "fine-tuning",
            without={
                "--text-column": "image and text are read by frozen towers",
                "--input-size": "blocks are tuned at the size that the encoder was trained at",
                "--sweep": "sweep first, then pass the options that it found",
            },
        ),
    ] = None
    judging: Annotated[JudgingOptions, Group("judging")] = JudgingOptions()
    revision: Revision = None
    feature: Feature = None
    input_size: InputSize = None
    open_clip: OpenClip = None

    @property
    def out(self) -> Path:
        """The file to write."""
        return self.out_file or Path("steps.png" if self.judging.explain_preprocessing else "head.pt")

    @property
    def learns_pooling(self) -> bool:
        """Whether a query is learnt with the head."""
        tokens = token_feature(self.feature or POOLED)
        return tokens is not None and tokens.is_learnt

    @property
    def training(self) -> TrainingOptions:
        """How the head is trained, with the learning rate that suits its start."""
        return replace(self.learning, learning_rate=self.rate or (_START_RATE if self.start else _RATE))

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        explained = self.judging.explain_preprocessing is not None
        if self.data is None and not explained:
            raise UsageError("DATA is missing")
        if self.data is not None and explained:
            raise UsageError("--explain-preprocessing takes an image and no DATA")
        if self.examples.text_column is not None and explained:
            raise UsageError("--explain-preprocessing draws an image, and reads no --text-column")
        if self.examples.text_column is not None and self.data is not None and self.data.is_dir():
            raise UsageError("--text-column names a column of a CSV file, but DATA is a folder")
        if self.examples.text_column is not None and self.learning.normalises:
            raise UsageError("--feature-norm l2 does not go with --text-column: image and text have norms of their own")
        if self.sweep and self.learning.keep_last:
            raise UsageError("--keep-last does not go with --sweep, which compares the lowest validation losses")
        self._check_tuning()
        self._check_features()
        if self.start is not None:
            self._check_start(self.start)

    def _check_start(self, start: StartOptions) -> None:
        if self.feature not in (None, PROJECTED):
            raise UsageError(
                f"--init zero-shot does not go with --feature {self.feature}: only the projected one shares a space "
                "with text"
            )
        if self.examples.task == REGRESSION:
            raise UsageError("--init zero-shot does not go with --task regression: its values have no words")
        if start.train_projection and self.input_size is not None:
            raise UsageError("--train-projection does not go with --input-size: an encoder is saved at its own size")
        if start.train_projection and self.examples.task == MULTI_LABEL:
            raise UsageError("--train-projection does not go with --task multi-label: it learns to tell labels apart")

    def _check_tuning(self) -> None:
        if self.tuning is None:
            return
        if self.tuning.distil and token_feature(self.feature or POOLED) is None:
            raise UsageError("--distil needs a --feature of a depth, such as class+mean@6: it is for a cut encoder")
        if self.learns_pooling:
            raise UsageError(
                f"--unfreeze does not go with --feature {self.feature}, whose pooling is learnt on frozen blocks: use "
                "mean in place of attention"
            )

    def _check_features(self) -> None:
        if self.data is None or not holds_features(self.data):
            return
        needs = {
            "--augment": self.examples.views > 0,
            "--groups": self.examples.groups is not None,  # of clip-scale, from the column group
            "--text-column": self.examples.text_column is not None,
            "--unfreeze": self.tuning is not None,
            "--init": self.start is not None,
            "--input-size": self.input_size is not None,
            "--report": self.judging.report is not None,
            f"--feature {self.feature}": self.learns_pooling,
        }
        for name, is_given in needs.items():
            if is_given:
                raise UsageError(f"{name} needs images or their encoder, and {self.data} holds features alone")


def parse_args(argv: Sequence[str] | None = None) -> TrainCommand:
    """Parse the command line; usage errors exit with code 2."""
    parser = Parser(
        prog=TRAIN,
        description="Train an MLP head on a frozen CLIP, SigLIP or BLIP image encoder, optionally with its text tower.",
        epilog="docs/training.md walks through a training, and says how to read the report.",
    )
    return parse_options(parser, TrainCommand, argv)
