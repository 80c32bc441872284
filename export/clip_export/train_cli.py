"""``clip-train``: labelled images in, a trained head out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from clip_export.command import execute
from clip_export.train_arguments import PROGRAM, data_options, parse_args

__all__ = ["PROGRAM", "main", "parse_args", "run"]


def run(args: argparse.Namespace) -> int:
    """Train and write the head; return the exit code."""
    from clip_export.encoder import Encoder
    from clip_export.head_files import save_head
    from clip_export.train_stages import finished_head, prepared_data, tell, trained
    from clip_export.train_start import start_words, trained_from_words
    from clip_export.training.checkpoints import checkpoint_path
    from clip_export.training.preparation import read_dataset
    from clip_export.training.thresholds import check_rule, operating_rule

    if args.explain_preprocessing is not None:
        return _explain(args)
    _check_outputs(args)
    options = data_options(args, _device(args.device))
    dataset = read_dataset(args.data, options)
    check_rule(operating_rule(args.operating_point), dataset.task, dataset.labels, args.positive)
    words = start_words(args, dataset) if args.init else None
    feature = args.feature or ("projected" if args.init else "pooled")
    encoder = Encoder.from_pretrained(args.encoder, args.revision, feature)
    print(
        f"{len(dataset.files)} files, labels: {', '.join(dataset.labels)}; encoder {args.encoder}, {encoder.dim} wide"
    )
    prepared = prepared_data(args, encoder, dataset, options)
    training, chosen = trained(args, prepared) if words is None else trained_from_words(args, prepared, words)
    head = finished_head(args, prepared, training, chosen, encoder)
    save_head(head, args.out)
    checkpoint_path(args.out).unlink(missing_ok=True)  # not before the head is safe
    tell(prepared, training, head)
    print(f"wrote {args.out}")
    if args.report is not None:
        from clip_export.training.report import write_report

        print(f"wrote {write_report(args.report, prepared, training, head, args.positive)}")
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Find out before minutes of work what would spoil them."""
    from clip_export.extra import require
    from clip_export.head_files import check_suffix
    from clip_toolkit.atomic import check_writable
    from clip_toolkit.errors import OutputError

    check_suffix(args.out)
    check_writable(args.out)
    if args.report is not None:
        require("report", "matplotlib", "sklearn")
    if args.tensorboard is not None:
        require("tensorboard", "tensorboard")
    for folder in filter(None, (args.report, args.tensorboard)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be used as a folder ({error.strerror}). Name another.") from error


def _device(name: str) -> str:
    import torch

    from clip_toolkit.errors import DeviceError

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).item()
    except Exception as error:  # torch raises RuntimeError, AssertionError or others, by device
        raise DeviceError(f"device {name}: PyTorch cannot use it ({str(error).partition(chr(10))[0]})") from error
    return name


def _explain(args: argparse.Namespace) -> int:
    from clip_export.encoder import Encoder
    from clip_export.extra import require
    from clip_export.training.preprocessing_steps import draw_steps
    from clip_toolkit.atomic import check_writable
    from clip_toolkit.errors import OutputError

    require("report", "matplotlib")
    if args.out.suffix != ".png":
        raise OutputError(f"{args.out}: expected a file ending in .png")
    check_writable(args.out)
    encoder = Encoder.from_pretrained(args.encoder, args.revision, args.feature or "pooled")
    draw_steps(encoder, args.explain_preprocessing, args.out)
    print(f"wrote {args.out}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return execute(PROGRAM, run, parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
