"""``clip-train``: a folder of labelled images in, a trained head out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clip_export.command import add_common_arguments, execute, number, positive, seed

if TYPE_CHECKING:
    from clip_export.encoder import Encoder
    from clip_export.features import Features
    from clip_export.heads import VLMtoMLP
    from clip_export.image_folder import ImageFolder
    from clip_export.training import Epoch, TrainingOptions

PROGRAM = "clip-train"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; usage errors exit with code 2."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Train an MLP head on a frozen CLIP, SigLIP or BLIP image encoder."
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with one subfolder of images per class")
    parser.add_argument("--encoder", required=True, help="hub id or local folder in transformers format")
    parser.add_argument(
        "--out", type=Path, default=Path("head.pt"), help="head file, .pt or .safetensors (%(default)s)"
    )
    parser.add_argument("--epochs", type=positive, default=100, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--lr", type=number(0), default=1e-4, help="learning rate of Adam (default: %(default)s)")
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--hidden-dim", type=positive, default=256, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--dropout", type=number(0, 1, or_equal=True), default=0.1, help="(default: %(default)s)")
    parser.add_argument(
        "--val-fraction", type=number(0, 1), default=0.2, help="held out of each class (default: %(default)s)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="of split, weights and order (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, or a PyTorch device such as cpu or cuda")
    add_common_arguments(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Train and write the head; return the exit code."""
    from clip_export.encoder import Encoder
    from clip_export.head_files import DataReference, EncoderReference, TrainedHead, check_suffix, save_head
    from clip_export.image_folder import read_image_folder
    from clip_toolkit.atomic import check_writable

    check_suffix(args.out)
    check_writable(args.out)
    folder = read_image_folder(args.data)
    encoder = Encoder.from_pretrained(args.encoder, args.revision, args.feature or "pooled")
    print(f"{len(folder.files)} files in {len(folder.classes)} classes; encoder {args.encoder}, {encoder.dim} wide")
    features = _features(encoder, folder, _device(args.device), args.batch_size)
    head, last, (train, validation) = _train(features, folder, _options(args), args.val_fraction)
    summary = {
        "images": len(features.kept),
        "skipped": len(features.errors),
        "train": len(train),
        "validation": len(validation),
        "epochs": args.epochs,
        "learning rate": args.lr,
        "seed": args.seed,
        "train accuracy": round(last.train_accuracy, 4),
        "validation accuracy": round(last.val_accuracy, 4),
    }
    reference = EncoderReference(_portable_id(args.encoder), encoder.revision, encoder.feature)
    held_out = [folder.files[features.kept[row]].relative_to(args.data).as_posix() for row in validation]
    data = DataReference(str(args.data.resolve()), tuple(held_out))
    save_head(TrainedHead(head, reference, folder.classes, summary, data), args.out)
    print(
        f"validation accuracy {last.val_accuracy:.1%} on {len(validation)} images, training {last.train_accuracy:.1%}"
    )
    print(f"wrote {args.out}")
    return 0


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


def _options(args: argparse.Namespace) -> TrainingOptions:
    from clip_export.training import TrainingOptions

    return TrainingOptions(
        epochs=args.epochs,
        learning_rate=args.lr,
        batch_size=args.batch_size,
        hidden_dim=args.hidden_dim,
        dropout=args.dropout,
        seed=args.seed,
    )


def _portable_id(encoder: str) -> str:
    """The name under which a later clip-export finds the encoder, from whatever folder it is called."""
    return str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder


def _features(encoder: Encoder, folder: ImageFolder, device: str, batch_size: int) -> Features:
    from clip_export.features import image_features
    from clip_export.progress import bar

    with bar("features", len(folder.files)) as advance:
        features = image_features(encoder, folder.files, batch_size, device, advance)
    for error in features.errors:
        print(f"{PROGRAM}: skipped: {error}", file=sys.stderr)
    if features.errors:
        print(f"{PROGRAM}: skipped {len(features.errors)} of {len(folder.files)} files", file=sys.stderr)
    return features


def _train(
    features: Features, folder: ImageFolder, options: TrainingOptions, fraction: float
) -> tuple[VLMtoMLP, Epoch, tuple[list[int], list[int]]]:
    import torch

    from clip_export.image_folder import require_every_class, stratified_split
    from clip_export.progress import bar
    from clip_export.training import Examples, train_head

    targets = [folder.targets[index] for index in features.kept]
    require_every_class(folder.classes, targets)
    train, validation = stratified_split(targets, fraction, options.seed)
    labels = torch.tensor(targets)
    with bar("training", options.epochs) as advance:
        head, last = train_head(
            Examples(features.values[train], labels[train]),
            Examples(features.values[validation], labels[validation]),
            len(folder.classes),
            options,
            lambda epoch: advance(1, f"loss {epoch.loss:.4f}, validation {epoch.val_accuracy:.1%}"),
        )
    return head, last, (train, validation)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return execute(PROGRAM, run, parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
