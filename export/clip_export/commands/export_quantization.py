"""The part of ``clip-export`` that speaks of quantization: its arguments, where its images come from, its receipt."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from clip_export.commands.argument_types import number, share
from clip_toolkit.spec.receipts import agreement_text
from clip_toolkit.spec.tasks import REGRESSION
from clip_toolkit.terminal import say

if TYPE_CHECKING:
    from clip_export.heads.files import DataReference
    from clip_export.quantization.evidence.images import Wanted
    from clip_export.quantization.quantizing import QuantizationOptions, Quantized

# Names in clip_export.quantization, repeated so that --help needs no torch; a test holds them together.
MODES = ("int8", "int4", "fp16")
TARGETS = ("x86-vnni", "x86", "arm64", "web")

_TRAINING_DATA = "the training data"  # of --refit without a folder
_SHOWN_FLIPS = 20
_MIN_AGREEMENT, _MINUTES = 0.99, 10.0


def add_quantization_arguments(parser: argparse.ArgumentParser) -> None:
    """``--quantize`` and what belongs to it."""
    group = parser.add_argument_group(
        "quantization", "a smaller and faster file, written only if it decides as the float one does on your images"
    )
    group.add_argument(
        "--quantize", choices=MODES, help="int8: fastest on CPUs; int4: smallest; fp16: for GPUs (default: float32)"
    )
    group.add_argument(
        "--target", choices=("auto", *TARGETS), default="auto", help="processor an int8 file is for (default: this one)"
    )
    group.add_argument(
        "--calibration",
        type=Path,
        metavar="DATA",
        help="folder or CSV file of typical images to tune on (default: the training data, if they are still there)",
    )
    group.add_argument(
        "--evaluation",
        type=Path,
        metavar="DATA",
        help="other images to judge by (default: held-out ones of the calibration images)",
    )
    group.add_argument("--all-files", action="store_true", help="of folders, take files of any suffix")
    group.add_argument(
        "--min-agreement",
        type=share,
        metavar="SHARE",
        help="of the evaluation images that must keep their class; of --text-tower, the least cosine similarity that "
        f"embeddings must keep (default: {_MIN_AGREEMENT})",
    )
    group.add_argument(
        "--refit",
        nargs="?",
        const=_TRAINING_DATA,
        metavar="DIR",
        help="train the head again behind the quantized encoder, on these images (default: the calibration folder)",
    )
    group.add_argument(
        "--search-minutes",
        type=number(0),
        metavar="N",
        help=f"time to search for the best int8 (default: {_MINUTES})",
    )


def check_quantization_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where arguments do not go together."""
    if args.quantize is None:
        for name in ("calibration", "evaluation", "refit", "min_agreement", "search_minutes"):
            if getattr(args, name) is not None:
                parser.error(f"--{name.replace('_', '-')} needs --quantize")
    if args.quantize != "int8" and args.search_minutes is not None:
        parser.error("--search-minutes goes with int8 alone, which has something to search for")
    if args.quantize != "int8" and args.target != "auto":
        parser.error("--target needs --quantize int8")
    if args.quantize == "fp16" and args.refit is not None:
        parser.error("--refit goes with int8 and int4; fp16 moves the features too little for it")


def quantization_options(
    args: argparse.Namespace, wanted: Wanted, remembered: DataReference | None
) -> QuantizationOptions | None:
    """What the arguments ask for; None without ``--quantize``.

    Raises:
        QuantizationError: images are too few, mixed up or of other classes, or this machine cannot prove the target.
    """
    if args.quantize is None:
        return None
    from clip_export.quantization.evidence.images import gather, refit_images
    from clip_export.quantization.quantizing import QuantizationOptions
    from clip_export.quantization.targets import find_target

    target = find_target(args.target)
    evidence = gather(wanted, args.calibration, args.evaluation, remembered)
    if evidence is None:
        say(
            "no images were given, and the training folder is not there: ranges are found at run time, and drawn "
            "pictures judge. Give typical images with --calibration for a proof that means something."
        )
    else:
        say(*wanted.listing.notes(), *(f"skipped: {error}" for error in evidence.unreadable))
    data = None if args.refit in (None, _TRAINING_DATA) else Path(args.refit)
    return QuantizationOptions(
        mode=args.quantize,
        target=target,
        evidence=evidence,
        refit=refit_images(data, evidence, wanted) if args.refit is not None else (),
        min_agreement=least_agreement(args),
        minutes=_MINUTES if args.search_minutes is None else args.search_minutes,
        report=say,
    )


def least_agreement(args: argparse.Namespace) -> float:
    """``--min-agreement``, or its default."""
    return _MIN_AGREEMENT if args.min_agreement is None else float(args.min_agreement)


def quantization_receipt(quantized: Quantized, task: str) -> list[str]:
    """What was done and what it changed, for people."""
    receipt, decisions = quantized.receipt, quantized.decisions
    target = f" for {receipt.target}" if receipt.mode == "int8" else ""
    quantity = "values" if task == REGRESSION else "probabilities"
    lines = [
        f"{receipt.mode}{target}: {receipt.choice}",
        (
            f"{agreement_text(task, receipt.agreement, receipt.evaluation_images)} ({receipt.source}); "
            f"{quantity} moved by {receipt.mean_shift:.4f} on average, {receipt.largest_shift:.4f} at most"
        ),
    ]
    if receipt.accuracy_before is not None and receipt.accuracy_after is not None:
        lines.append(f"accuracy {receipt.accuracy_before:.2%} in float32, {receipt.accuracy_after:.2%} now")
    for name, flip in decisions.flips[:_SHOWN_FLIPS]:
        lines.append(
            f"  flip: {name}: {flip.before} {flip.before_probability:.1%} -> {flip.after} {flip.after_probability:.1%}"
        )
    if len(decisions.flips) > _SHOWN_FLIPS:
        lines.append(f"  and {len(decisions.flips) - _SHOWN_FLIPS} flips more")
    return [*lines, _size_and_speed(receipt.size_ratio, receipt.speed_ratio)]


def _size_and_speed(size: float, speed: float | None) -> str:
    if speed is None:
        verdict = "speed not measured, this machine being another"
    else:
        verdict = f"{speed:.2f} x as fast for one image on this CPU"
        verdict = verdict if speed >= 1 else f"SLOWER than float32 here, {verdict}"
    return f"{size:.3f} of the size of the float32 file; {verdict}"
