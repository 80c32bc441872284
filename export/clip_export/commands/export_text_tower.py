"""The part of ``clip-export`` that speaks of text towers: its argument, what goes with it, its receipt."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from clip_export.commands.export_quantization import least_agreement
from clip_toolkit.terminal import show

if TYPE_CHECKING:
    from clip_toolkit.spec.text_tower import TextTowerSpec

_OUTPUT = Path("text.onnx")
_ABOUT_HEADS = (
    *("labels", "feature", "cross_check"),
    *("calibration", "evaluation", "refit", "search_minutes"),
)


def add_text_arguments(group: argparse._MutuallyExclusiveGroup) -> None:
    """``--text-tower``."""
    group.add_argument(
        "--text-tower",
        action="store_true",
        help=f"write the encoder's text tower and tokenizer instead of a classifier (default output: {_OUTPUT})",
    )


def check_text_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where arguments do not go together."""
    if not args.text_tower:
        return
    if args.encoder is None:
        parser.error("--text-tower needs --encoder")
    for name in _ABOUT_HEADS:
        if getattr(args, name) is not None:
            parser.error(f"--{name.replace('_', '-')} does not go with --text-tower")
    if args.quantize not in (None, "int8") or args.target != "auto":
        parser.error("text towers can be quantized to int8 alone, and for no --target")
    if args.quantize and args.ops != "ort":
        parser.error("text towers in int8 need ONNX Runtime's own operators: leave out --ops standard, or --quantize")
    if args.input != "image":
        parser.error("--input does not go with --text-tower")


def export_text(args: argparse.Namespace) -> int:
    """Export a text tower and print the receipt; return the exit code."""
    from clip_export.encoders.text import TextEncoder
    from clip_export.text_exporting import export_text_tower
    from clip_toolkit.files.atomic import check_writable

    output = args.output or _OUTPUT
    check_writable(output)
    tower = TextEncoder.from_pretrained(args.encoder, args.revision)
    spec = export_text_tower(tower, output, args.ops, least_agreement(args) if args.quantize else None)
    show(*text_receipt(spec))
    show(f"wrote {output} ({output.stat().st_size / 2**20:.1f} MiB), the text tower of {spec.encoder.id}")
    return 0


def text_receipt(spec: TextTowerSpec) -> list[str]:
    """The parity receipt as lines of a table, and what quantization changed."""
    parity, quantization = spec.parity, spec.quantization
    assert parity is not None  # export_text_tower always fills it
    batches = ", ".join(map(str, parity.batches))
    lines = [
        (
            f"parity with PyTorch on {parity.texts} texts, batch {batches}; {parity.truncated} of them beyond "
            f"{spec.tokenizer.context} tokens and cut there; feature scale {parity.feature_scale:.3g}"
        ),
        f"{'max abs difference':<20}{'tokens':>14}{'features':>12}{'embedding':>12}",
        f"{'':<20}{'equal':>14}{parity.features:>12.1e}{parity.embedding:>12.1e}",
    ]
    if quantization is not None:
        lines.append(
            f"int8: cosine similarity with the float embeddings {quantization.mean_cosine:.4f} on average, at least "
            f"{quantization.least_cosine:.4f}; {quantization.size_ratio:.3f} of the size, "
            f"{quantization.speed_ratio:.2f} x as fast for one short text on this CPU"
        )
    return lines
