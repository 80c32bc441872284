"""``clip-export``: a head, or the words for one, and its encoder in, one proved ONNX file out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clip_export.commands.argument_types import add_common_arguments, prepare_libraries
from clip_export.commands.export_notebook import (
    add_notebook_arguments,
    check_notebook_arguments,
    expected_answers,
    notebook_receipt,
    reading_of,
)
from clip_export.commands.export_quantization import (
    add_quantization_arguments,
    check_quantization_arguments,
    quantization_receipt,
)
from clip_export.commands.export_text_tower import add_text_arguments, check_text_arguments, export_text
from clip_toolkit.terminal import run_command, show

if TYPE_CHECKING:
    from clip_export.encoders.image import Encoder
    from clip_export.encoders.text import TextEncoder
    from clip_export.exporting import ExportOptions
    from clip_export.heads.files import TrainedHead
    from clip_toolkit.spec.classifier import ModelSpec
    from clip_toolkit.spec.receipts import Differences

PROGRAM = "clip-export"

_OUTPUT = Path("model.onnx")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; usage errors exit with code 2."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Fuse encoder, head and preprocessing into one ONNX file, proved to decide as PyTorch does.",
        epilog="A head file may also be a notebook's bare state_dict; give it --encoder and --labels.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--head", type=Path, help="head file, .pt or .safetensors")
    source.add_argument(
        "--zero-shot", action="store_true", help="no head: classify by what the encoder's text tower makes of --labels"
    )
    add_text_arguments(source)
    parser.add_argument("--encoder", help="hub id or local folder (default: the one the head was trained on)")
    parser.add_argument(
        "--labels", nargs="+", metavar="LABEL", help="class names in training order (default: the head's)"
    )
    parser.add_argument(
        "--templates",
        nargs="+",
        metavar="TEXT",
        help="of --zero-shot: prompts with {} where the label goes; several are averaged (default: 'a photo of a {}')",
    )
    parser.add_argument("-o", "--output", type=Path, help=f"(default: {_OUTPUT})")
    parser.add_argument(
        "--input",
        choices=("image", "pixels"),
        default="image",
        help="take raw RGB images, or normalised pixel_values for compilers that want the network alone (%(default)s)",
    )
    parser.add_argument(
        "--ops",
        choices=("ort", "standard"),
        default="ort",
        help="ONNX Runtime's fused operators, or standard ONNX alone for OpenVINO, TensorRT and CoreML (%(default)s)",
    )
    parser.add_argument("--cross-check", choices=("optimum",), help="compare with a second exporter's file, too")
    add_notebook_arguments(parser)
    add_quantization_arguments(parser)
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    check_text_arguments(parser, args)
    check_notebook_arguments(parser, args)
    check_quantization_arguments(parser, args)
    _check_combination(parser, args)
    return args


def _check_combination(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.zero_shot:
        if args.templates is not None:
            parser.error("--templates needs --zero-shot")
        return
    for name in ("encoder", "labels"):
        if getattr(args, name) is None:
            parser.error(f"--zero-shot needs --{name}")
    if args.feature == "pooled":
        parser.error("--zero-shot reads the projected feature: only that one shares a space with text")


def run(args: argparse.Namespace) -> int:
    """Export and print the receipt; return the exit code."""
    return export_text(args) if args.text_tower else _export_classifier(args)


def _export_classifier(args: argparse.Namespace) -> int:
    from clip_export.exporting import checked_labels, export_classifier
    from clip_export.heads.tuned_encoder import referenced_encoder
    from clip_toolkit.errors import ExpectError
    from clip_toolkit.files.atomic import check_writable

    output = args.output = args.output or _OUTPUT
    check_writable(output)
    head = _zero_shot_head(args) if args.zero_shot else _loaded_head(args)
    encoder = referenced_encoder(args.head or args.output, head.encoder, args.encoder, args.revision, args.feature)
    tower = _tower(encoder) if head.encoder is not None and head.encoder.text else None
    expected = expected_answers(args)
    if expected is not None and tower is not None:
        raise ExpectError("--expect: this head reads texts, and the notebook's answers are to images alone.")
    told = expected.answers.labels if expected is not None and head.labels is None else None
    labels = checked_labels(head, encoder, args.labels or told, tower)
    options = replace(_options(args, labels, encoder, head), expected=expected)
    exported = export_classifier(head, encoder, output, labels, options, tower=tower)
    spec = exported.spec
    show(*receipt(spec), *notebook_receipt(spec))
    if exported.quantized is not None:
        show(*quantization_receipt(exported.quantized, spec.task))
    show(f"wrote {output} ({output.stat().st_size / 2**20:.1f} MiB), labels: {', '.join(spec.labels)}")
    return 0


def _loaded_head(args: argparse.Namespace) -> TrainedHead:
    from clip_export.heads.files import load_head
    from clip_toolkit.errors import OutputError

    if args.output.exists() and args.head.exists() and args.output.samefile(args.head):
        raise OutputError(f"{args.output}: is the head file itself. Name another output with -o.")
    return load_head(args.head, reading_of(args))


def _zero_shot_head(args: argparse.Namespace) -> TrainedHead:
    from clip_export.encoders.checkpoint import Checkpoint
    from clip_export.encoders.text import TextEncoder
    from clip_export.heads.zero_shot import TEMPLATES, check_words, zero_shot_head

    templates = args.templates or TEMPLATES
    check_words(args.labels, templates, Checkpoint.find(args.encoder, args.revision).family)
    head = zero_shot_head(TextEncoder.from_pretrained(args.encoder, args.revision), args.labels, templates)
    show(f"zero-shot, {head.task}: {len(args.labels)} labels in the prompts {', '.join(map(repr, templates))}")
    return head


def _text_column(head: TrainedHead) -> str | None:
    """Where a manifest has the texts of a head that reads some: where the one that it learnt from had them."""
    if head.encoder is None or not head.encoder.text:
        return None
    return (head.data.text_column if head.data is not None else None) or "text"


def _tower(encoder: Encoder) -> TextEncoder:
    """The text tower that a head reads beside the encoder of the same checkpoint."""
    from clip_export.encoders.text import TextEncoder

    return TextEncoder.from_pretrained(encoder.id, encoder.revision)


def _options(args: argparse.Namespace, labels: tuple[str, ...], encoder: Encoder, head: TrainedHead) -> ExportOptions:
    from clip_export.commands.export_quantization import quantization_options
    from clip_export.exporting import ExportOptions
    from clip_export.quantization.evidence.images import Wanted
    from clip_toolkit.errors import HeadError
    from clip_toolkit.images.folder import ImageListing

    checks = ()
    if args.cross_check and head.encoder is not None and head.encoder.text:
        raise HeadError(f"{args.head}: reads texts, and --cross-check compares classifiers of images alone.")
    if args.cross_check:
        from clip_export.proof.optimum import optimum_differences

        checks = ((args.cross_check, optimum_differences),)
    listing = ImageListing(all_files=args.all_files)
    wanted = Wanted(labels, encoder.preprocessing, head.task, _text_column(head), listing)
    quantization = quantization_options(args, wanted, head.data)
    return ExportOptions(args.input, args.ops, args.temperature, cross_checks=checks, quantization=quantization)


def receipt(spec: ModelSpec) -> list[str]:
    """The parity receipt as lines of a table."""
    parity = spec.parity
    assert parity is not None  # export_classifier always fills it
    pictures = f"{parity.images} pictures ({', '.join(parity.shapes)})"
    pictures += f" with {parity.texts} texts" if parity.texts else ""
    batches = ", ".join(map(str, parity.batches))
    lines = [
        f"parity with PyTorch on {pictures}, batch {batches}; logit scale {parity.logit_scale:.3g}",
        f"{'max abs difference':<20}{'pixels':>14}{'embedding':>12}{'logits':>12}{'probabilities':>15}",
        _row("resized by Pillow", parity.pillow),
    ]
    if parity.graph is not None:
        lines.append(_row("resized in graph", parity.graph))
    for name, figures in parity.cross_check.items():
        lines.append(f"{name:<20}{'':>14}{figures['embedding']:>12.1e}{figures['logits']:>12.1e}")
    return lines


def _row(name: str, found: Differences) -> str:
    pixels = f"{found.pixels} in {found.pixels_share:.3%}"
    return f"{name:<20}{pixels:>14}{found.embedding:>12.1e}{found.logits:>12.1e}{found.probabilities:>15.1e}"


def _main(argv: Sequence[str] | None) -> int:
    args = parse_args(argv)
    prepare_libraries()
    return run(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_command(PROGRAM, lambda: _main(argv))


if __name__ == "__main__":
    sys.exit(main())
