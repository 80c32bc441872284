"""``clip-train``: labelled images in, a trained head out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from clip_export.commands.argument_types import prepare_libraries
from clip_export.commands.train_arguments import PROGRAM, data_options, parse_args
from clip_export.commands.train_finetuning_arguments import finetuning_options
from clip_toolkit.terminal import run_command, say, show

if TYPE_CHECKING:
    from clip_export.commands.train_finetuning import FineTuned
    from clip_export.encoders.image import Encoder
    from clip_export.heads.files import TrainedHead

__all__ = ["PROGRAM", "main", "parse_args", "run"]


def run(args: argparse.Namespace) -> int:
    """Train and write the head; return the exit code."""
    from clip_export.commands.train_finetuning import finetune_encoder
    from clip_export.commands.train_finished_head import finish_head
    from clip_export.commands.train_from_words import start_words, train_with_words
    from clip_export.commands.train_stages import prepare_data, score_alone, tell, train
    from clip_export.encoders.text import TextEncoder
    from clip_export.training.judging.thresholds import check_rule
    from clip_export.training.preparation import read_dataset

    if args.explain_preprocessing is not None:
        return _explain(args)
    _check_outputs(args)
    options = data_options(args, _device(args.device))
    tuning = finetuning_options(args, options.device)
    dataset = read_dataset(args.data, options)
    check_rule(args.operating_point, dataset.task, dataset.labels, args.positive)
    words = start_words(args, dataset) if args.init else None
    encoder = _encoder(args)
    show(f"{len(dataset.files)} files, labels: {', '.join(dataset.labels)}; encoder {args.encoder}, {encoder.dim} wide")
    tower = None if options.text_column is None else TextEncoder.from_pretrained(args.encoder, args.revision)
    prepared = prepare_data(args, encoder, dataset, options, tower)
    training, chosen = train(args, prepared) if words is None else train_with_words(args, prepared, words)
    alone = score_alone(args, prepared, training, chosen)
    tuned = None
    if tuning is not None:
        tuned = finetune_encoder(args, encoder, prepared, frozen=training, head_options=chosen, options=tuning)
    if tuned is not None:
        prepared, training = tuned.prepared, tuned.training
    head = finish_head(args, prepared, training, chosen, encoder, alone=alone)
    head = _saved(args, head, encoder, tuned)
    tell(prepared, training, head, alone)
    show(f"wrote {args.out}" + (f" and its encoder, {args.out.with_name(head.encoder.folder)}" if tuned else ""))
    if args.report is not None:
        from clip_export.training.report.report import write_report

        show(f"wrote {write_report(args.report, prepared, training, head, args.positive, alone=alone)}")
    return 0


def _encoder(args: argparse.Namespace) -> Encoder:
    from clip_export.encoders.image import Encoder
    from clip_export.training.finetuning.halves import check_blocks

    feature = args.feature or ("projected" if args.init else "pooled")
    encoder = Encoder.from_pretrained(args.encoder, args.revision, feature)
    if args.unfreeze is not None:
        check_blocks(encoder, args.unfreeze)
    return encoder


def _saved(args: argparse.Namespace, head: TrainedHead, encoder: Encoder, tuned: FineTuned | None) -> TrainedHead:
    """Write the head, with its encoder if that was fine-tuned, remove the checkpoints, and name what is left over."""
    from clip_export.commands.train_finetuning import PART
    from clip_export.heads.files import save_head
    from clip_export.heads.tuned_encoder import earlier_encoders, save_with_encoder
    from clip_export.training.checkpoints import checkpoint_path

    if tuned is None:
        save_head(head, args.out)
    else:
        head = save_with_encoder(replace(head, training=head.training | tuned.summary), encoder, args.out)
    for part in ("", PART):
        checkpoint_path(args.out, part).unlink(missing_ok=True)
    for folder in earlier_encoders(args.out, head.encoder):
        say(f"{folder}: belongs to an earlier {args.out.name}. Delete it unless a copy of that is in use.")
    return head


def _check_outputs(args: argparse.Namespace) -> None:
    """Find out before minutes of work what would spoil them."""
    from clip_export.extra import require
    from clip_export.heads.files import check_suffix
    from clip_toolkit.errors import OutputError
    from clip_toolkit.files.atomic import check_writable

    check_suffix(args.out)
    check_writable(args.out)
    if args.report is not None:
        require("report", "matplotlib")
    if args.tensorboard is not None:
        require("tensorboard", "tensorboard")
    _check_checkpoints(args)
    for folder in filter(None, (args.report, args.tensorboard)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be used as a folder ({error.strerror}). Name another.") from error


def _check_checkpoints(args: argparse.Namespace) -> None:
    """Refuse to write over what an interrupted training has left, which may be hours of work."""
    from clip_export.commands.train_finetuning import PART
    from clip_export.training.checkpoints import checkpoint_path
    from clip_toolkit.errors import OutputError

    for path in (checkpoint_path(args.out, part) for part in ("", PART)):
        if path.exists() and not args.resume:
            raise OutputError(
                f"{path}: is left from an interrupted training. Continue it with --resume, or remove it to start over."
            )


def _device(name: str) -> str:
    import torch

    from clip_toolkit.errors import DeviceError, first_line

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).item()
    except Exception as error:  # torch raises RuntimeError, AssertionError or others, by device
        raise DeviceError(f"device {name}: PyTorch cannot use it ({first_line(error)})") from error
    return name


def _explain(args: argparse.Namespace) -> int:
    from clip_export.encoders.image import Encoder
    from clip_export.extra import require
    from clip_export.training.report.preprocessing_steps import draw_steps
    from clip_toolkit.errors import OutputError
    from clip_toolkit.files.atomic import check_writable

    require("report", "matplotlib")
    if args.out.suffix != ".png":
        raise OutputError(f"{args.out}: expected a file ending in .png")
    check_writable(args.out)
    encoder = Encoder.from_pretrained(args.encoder, args.revision, args.feature or "pooled")
    draw_steps(encoder, args.explain_preprocessing, args.out)
    show(f"wrote {args.out}")
    return 0


def _main(argv: Sequence[str] | None) -> int:
    args = parse_args(argv)
    prepare_libraries()
    return run(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_command(PROGRAM, lambda: _main(argv))


if __name__ == "__main__":
    sys.exit(main())
