"""The options of ``clip-train`` that concern fine-tuning, and the options object that they fill."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from clip_export.commands.argument_types import number, positive

if TYPE_CHECKING:
    from clip_export.training.finetuning.options import FinetuningOptions

# Names in clip_export.training.updates, repeated so that --help needs no torch; a test compares them.
PRECISIONS = ("float32", "bfloat16", "float16")

# What each option fills, and what it is if it is left out, as in FinetuningOptions; a test compares them.
DEFAULTS = {
    "encoder_epochs": ("epochs", 10),
    "encoder_lr": ("learning_rate", 3e-5),
    "encoder_weight_decay": ("weight_decay", 0.01),
    "clip_norm": ("clip_norm", 1.0),
    "accumulate": ("accumulate", 1),
    "precision": ("precision", "float32"),
}


def add_finetuning_arguments(group: argparse._ArgumentGroup) -> None:
    """``--unfreeze`` and what goes with it."""
    default = {name: f"(default: {value})" for name, (_, value) in DEFAULTS.items()}
    group.add_argument(
        "--unfreeze",
        type=positive,
        metavar="N",
        help="once the head is trained, train the last N encoder blocks with it; the encoder is saved beside the head",
    )
    group.add_argument("--encoder-epochs", type=positive, metavar="N", help=default["encoder_epochs"])
    group.add_argument("--encoder-lr", type=number(0), help=f"its learning rate {default['encoder_lr']}")
    group.add_argument("--encoder-weight-decay", type=number(0, or_equal=True), help=default["encoder_weight_decay"])
    group.add_argument("--clip-norm", type=number(0), help=f"largest norm of the gradients {default['clip_norm']}")
    group.add_argument(
        "--accumulate",
        type=positive,
        metavar="N",
        help=f"batches for one update: memory of one, effect of all {default['accumulate']}",
    )
    group.add_argument("--precision", choices=PRECISIONS, help=f"others need a GPU {default['precision']}")


def check_finetuning_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that do not go together; usage errors exit with code 2."""
    if args.unfreeze is None:
        for name in DEFAULTS:
            if getattr(args, name) is not None:
                parser.error(f"--{name.replace('_', '-')} goes with --unfreeze")
    elif args.text_column is not None:
        parser.error("--text-column does not go with --unfreeze: picture and text are read by frozen towers")
    elif args.sweep:
        parser.error("--sweep does not go with --unfreeze: sweep first, and then give the options that it found")


def finetuning_options(args: argparse.Namespace, device: str) -> FinetuningOptions | None:
    """How the encoder is fine-tuned, or None if it is not."""
    from clip_export.training.finetuning.options import FinetuningOptions

    if args.unfreeze is None:
        return None
    given = {field: getattr(args, name) for name, (field, _) in DEFAULTS.items() if getattr(args, name) is not None}
    return FinetuningOptions(args.unfreeze, device=device, **given)
