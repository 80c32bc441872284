"""The options of ``clip-export``, and which of them go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from clip_export.commands import EXPORT
from clip_export.commands.encoder_options import Feature, OpenClip, Revision
from clip_export.encoders.feature_names import PROJECTED
from clip_export.heads.activations import ACTIVATIONS
from clip_export.heads.reading import FEATURE_NORM
from clip_export.quantization.request import QuantizationRequest
from clip_toolkit.numbers import number
from clip_toolkit.options import Group, Option, Parser, UsageError, parse_options
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL, TASKS

_OUTPUT, _TEXT_OUTPUT, _ENCODER_OUTPUT = Path("model.onnx"), Path("text.onnx"), Path("encoder.onnx")


def _task(text: str) -> str:
    if text.rpartition("=")[2] not in TASKS:
        raise ValueError(f"expected {', '.join(TASKS)}, or NAME=TASK, got {text!r}")
    return text


@dataclass(frozen=True)
class NotebookOptions:
    """What the file of a notebook's head leaves open, and the proof of how it was read."""

    expect: Annotated[
        Path | None,
        Option(
            "the notebook's own answers (.npz, .csv, .jsonl, .safetensors), which the file must give too",
            parse=Path,
            metavar="FILE",
        ),
    ] = None
    expect_tolerance: Annotated[
        float | None,
        Option(
            "largest difference from the notebook's answers, relative to the largest logit (default: 0.001)",
            parse=number("above 0 and below 1", lambda value: 0 < value < 1),
            metavar="SHARE",
        ),
    ] = None
    activation: Annotated[
        str | None,
        Option("between the layers of a bare state_dict (default: relu)", choices=tuple(ACTIVATIONS)),
    ] = None
    feature_norm: Annotated[str | None, FEATURE_NORM] = None
    norm_position: Annotated[
        str | None,
        Option(
            "BatchNorm and LayerNorm before or after the activation (default: by the layers' numbers, else before)",
            choices=("before", "after"),
        ),
    ] = None
    head_class: Annotated[
        str | None,
        Option(
            "the head's own class, for any other form. Its code is run: name only files that you trust",
            metavar="FILE.py:CLASS",
        ),
    ] = None
    head_args: Annotated[
        tuple[str, ...] | None,
        Option("arguments of that class, such as output_dim=3", nargs="+", metavar="NAME=VALUE"),
    ] = None
    trust_program: Annotated[
        bool,
        Option(
            "the head is a TorchScript or torch.export program: load it, which may run its code. Only for files that "
            "you trust"
        ),
    ] = False
    task: Annotated[
        tuple[str, ...] | None,
        Option(
            f"what becomes of the outputs, {', '.join(TASKS)}: a softmax, a sigmoid each, or nothing (default: "
            f"{SINGLE_LABEL}); of several heads NAME=TASK",
            parse=_task,
            nargs="+",
            metavar="TASK",
        ),
    ] = None
    temperature: Annotated[
        float | None,
        Option(
            "divide the logits by it (default: the head's own)",
            parse=number("above 0.001 and below 1000", lambda value: 1e-3 < value < 1e3),
            metavar="T",
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        if self.expect_tolerance is not None and self.expect is None:
            raise UsageError("--expect-tolerance needs --expect")
        if self.head_args is not None and (self.head_class is None or not all("=" in item for item in self.head_args)):
            raise UsageError("--head-args are NAME=VALUE, and need --head-class")
        if self.head_class is not None and (self.activation or self.norm_position):
            raise UsageError("--activation and --norm-position do not apply to --head-class, which says both")
        if self.task is not None and len(self.task) > 1 and not all("=" in item for item in self.task):
            raise UsageError("--task takes one task, or NAME=TASK for each of several heads")
        if self.temperature is not None and self.task == (REGRESSION,):
            raise UsageError("--temperature does not apply to a regression")


@dataclass(frozen=True)
class ExportCommand:
    """All options of ``clip-export``.

    Raises:
        UsageError: some of them do not go together.
    """

    head: Annotated[
        Path | None, Option("head file: .pt, .safetensors, .pt2, .npz, .skops", parse=Path, metavar="FILE")
    ] = None
    zero_shot: Annotated[
        bool, Option("no head: classify by the text embeddings of --labels, from the encoder's own text tower")
    ] = False
    text_tower: Annotated[
        bool,
        Option(
            f"write the encoder's text tower and tokenizer instead of a classifier (default output: {_TEXT_OUTPUT})"
        ),
    ] = False
    encoder_only: Annotated[
        bool,
        Option(f"write the encoder without a head, for clip-scale features (default output: {_ENCODER_OUTPUT})"),
    ] = False
    encoder: Annotated[
        str | None, Option("hub id, local folder or bare file (default: the encoder that the head was trained on)")
    ] = None
    labels: Annotated[
        tuple[str, ...] | None,
        Option(
            "labels in training order (default: the head's); of several heads NAME=LABEL,LABEL for each, the main one "
            "first",
            nargs="+",
            metavar="LABEL",
        ),
    ] = None
    templates: Annotated[
        tuple[str, ...] | None,
        Option(
            "prompts of --zero-shot, with {} for the label; several are averaged (default: 'a photo of a {}')",
            nargs="+",
            metavar="TEXT",
        ),
    ] = None
    output_file: Annotated[
        Path | None, Option(f"file to write (default: {_OUTPUT})", "-o --output", parse=Path, metavar="FILE")
    ] = None
    triton: Annotated[
        Path | None,
        Option("also add the file to this model repository of Triton's, as a new version", parse=Path, metavar="DIR"),
    ] = None
    input: Annotated[
        str,
        Option(
            "image: raw RGB images; pixels: normalised pixel_values, for compilers that want the network alone",
            choices=("image", "pixels"),
        ),
    ] = "image"
    ops: Annotated[
        str,
        Option(
            "ort: ONNX Runtime's fused operators; standard: standard ONNX alone, for OpenVINO, TensorRT and CoreML",
            choices=("ort", "standard"),
        ),
    ] = "ort"
    explain: Annotated[bool, Option("also tell which parts of an image speak for its label (output relevance)")] = False
    fast_decode: Annotated[
        Path | bool,
        Option(
            "let the runtime scale JPEGs down while decoding, if these images are decided as before (default: the "
            "training data's held-out ones)",
            parse=Path,
            metavar="DATA",
            nargs="?",
            const=True,
        ),
    ] = False
    sign: Annotated[
        Path | None,
        Option(
            "sign the file with this private key (PEM, ECDSA) and write FILE.sig (extra sign)",
            parse=Path,
            metavar="KEY",
        ),
    ] = None
    cross_check: Annotated[
        str | None, Option("also compare with the file of a second exporter", choices=("optimum",))
    ] = None
    notebook: Annotated[
        NotebookOptions, Group("a notebook's head", "what its file leaves open, and the proof of how it was read")
    ] = NotebookOptions()
    quantization: Annotated[
        QuantizationRequest | None,
        Group("quantization", "a smaller and faster file, written only if it decides as the float file on your images"),
    ] = None
    revision: Revision = None
    feature: Feature = None
    open_clip: OpenClip = None

    @property
    def output(self) -> Path:
        """The file to write."""
        default = _TEXT_OUTPUT if self.text_tower else _ENCODER_OUTPUT if self.encoder_only else _OUTPUT
        return self.output_file or default

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        sources = {
            "--head": self.head is not None,
            "--zero-shot": self.zero_shot,
            "--text-tower": self.text_tower,
            "--encoder-only": self.encoder_only,
        }
        given = [name for name, is_given in sources.items() if is_given]
        if len(given) != 1:
            found = f", got {' and '.join(given)}" if given else ""
            raise UsageError(f"expected one of --head, --zero-shot, --text-tower and --encoder-only{found}")
        if self.templates is not None and not self.zero_shot:
            raise UsageError("--templates needs --zero-shot")
        if self.head is None:
            self._check_no_head(given[0])
        if self.zero_shot:
            self._check_zero_shot()
        if self.text_tower:
            self._check_text_tower()
        if self.encoder_only:
            self._check_encoder_only()

    def _check_no_head(self, source: str) -> None:
        for field in fields(self.notebook):
            if getattr(self.notebook, field.name) not in (None, False):
                raise UsageError(f"--{field.name.replace('_', '-')} does not apply to {source}")

    def _check_zero_shot(self) -> None:
        if self.encoder is None or self.labels is None:
            raise UsageError(f"--zero-shot needs --{'encoder' if self.encoder is None else 'labels'}")
        if self.feature not in (None, PROJECTED):
            raise UsageError("--zero-shot reads the projected feature: only that one shares a space with text")

    def _check_encoder_only(self) -> None:
        if self.encoder is None:
            raise UsageError("--encoder-only needs --encoder")
        if self.labels is not None:
            raise UsageError("--labels does not go with --encoder-only: there is no head")
        if self.quantization is not None:
            raise UsageError(
                "--quantize does not go with --encoder-only: a head would learn from other features than those of the "
                "encoder that it is exported with"
            )

    def _check_text_tower(self) -> None:
        if self.encoder is None:
            raise UsageError("--text-tower needs --encoder")
        asked = self.quantization
        of_heads = {
            "--labels": self.labels,
            "--feature": self.feature,
            "--triton": self.triton,
            "--cross-check": self.cross_check,
            "--explain": self.explain or None,
            "--fast-decode": self.fast_decode or None,
            "--calibration": asked and asked.calibration,
            "--evaluation": asked and asked.evaluation,
            "--refit": asked and (asked.refit or None),
            "--search-minutes": asked and asked.search_minutes,
            "--input": None if self.input == "image" else self.input,
        }
        for name, value in of_heads.items():
            if value is not None:
                raise UsageError(f"{name} does not go with --text-tower")
        if asked is not None and (asked.mode != "int8" or asked.target != "auto"):
            raise UsageError("text towers can be quantized to int8 alone, and for no --target")
        if asked is not None and self.ops != "ort":
            raise UsageError(
                "text towers in int8 need ONNX Runtime's own operators: leave out --ops standard, or --quantize"
            )


def parse_args(argv: Sequence[str] | None = None) -> ExportCommand:
    """Parse the command line; usage errors exit with code 2."""
    parser = Parser(
        prog=EXPORT,
        description="Fuse encoder, head and preprocessing into one ONNX file, proved to decide as PyTorch does.",
        epilog="A head file may also be a notebook's bare state_dict; give it --encoder and --labels.",
    )
    return parse_options(parser, ExportCommand, argv)
