"""The options of ``clip-train``, and the options objects that they fill."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clip_export.commands.argument_types import add_common_arguments, number, positive, seed
from clip_export.commands.train_finetuning_arguments import add_finetuning_arguments, check_finetuning_arguments
from clip_export.training.judging.thresholds import OperatingRule
from clip_toolkit.spec.tasks import REGRESSION, TASKS

if TYPE_CHECKING:
    from clip_export.training.options import TrainingOptions
    from clip_export.training.preparation import DataOptions

PROGRAM = "clip-train"

# Names in clip_export.heads.mlp and clip_export.training, repeated so that --help needs no torch; a test compares them.
ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "leaky_relu", "elu", "sigmoid")
OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("step", "cosine", "none")
BACKENDS = ("auto", "torch", "onnxruntime")

_HIDDEN, _ACTIVATION, _DROPOUT = (256,), "relu", 0.1
_RATE = 1e-4  # the course's
_START_RATE = 1e-2  # a pull holds the head; with a few images 1e-4 would get nowhere in 100 epochs, least at random

DEFAULT = "(default: %(default)s)"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; usage errors exit with code 2."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Train an MLP head on a frozen CLIP, SigLIP or BLIP image encoder, and its text tower if asked to.",
        epilog="docs/training.md walks through a training, and says how to read the report.",
    )
    parser.add_argument(
        "data",
        type=Path,
        nargs="?",
        metavar="DATA",
        help="folder with one subfolder of images per class, or a CSV file",
    )
    parser.add_argument("--encoder", required=True, help="hub id or local folder in transformers format")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=None,
        help="head file, .pt or .safetensors (default: head.pt); with --explain-preprocessing a PNG file",
    )
    _data_arguments(parser.add_argument_group("data"))
    _encoding_arguments(parser.add_argument_group("features"))
    _head_arguments(parser.add_argument_group("head"))
    _loop_arguments(parser.add_argument_group("training"))
    add_finetuning_arguments(parser.add_argument_group("fine-tuning"))
    _judging_arguments(parser.add_argument_group("judging"))
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    _check_combination(parser, args)
    check_finetuning_arguments(parser, args)
    _check_start(parser, args)
    args.lr = args.lr or (_START_RATE if args.init else _RATE)
    args.out = args.out or Path("steps.png" if args.explain_preprocessing else "head.pt")
    return args


def _data_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--task", choices=TASKS, default=TASKS[0], help=f"what DATA names of each image {DEFAULT}")
    group.add_argument(
        "--text-column",
        metavar="NAME",
        help="column of the CSV file with a text for each image, which the head is to read together with it",
    )
    group.add_argument("--all-files", action="store_true", help="of a folder, take files of any suffix")
    group.add_argument(
        "--groups",
        metavar="RULE",
        help="what must stay on one side, such as a patient: a CSV file path,group, or a pattern searched in each path",
    )
    group.add_argument("--val-fraction", type=number(0, 1), default=0.2, help=f"held out to choose by {DEFAULT}")
    group.add_argument(
        "--test-fraction", type=number(0, 1, or_equal=True), default=0.0, help=f"held out to judge by {DEFAULT}"
    )
    group.add_argument("--shots", type=positive, metavar="K", help="learn from K images of each label")
    group.add_argument("--augment", type=positive, default=0, metavar="N", help="augmented views per training image")


def _encoding_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", default="auto", help="auto, or a PyTorch device such as cpu or cuda")
    group.add_argument("--backend", choices=BACKENDS, default="auto", help=f"who runs the encoder {DEFAULT}")
    cache = group.add_mutually_exclusive_group()
    cache.add_argument(
        "--cache", type=Path, metavar="DIR", help="where features are kept (default: user's cache folder)"
    )
    cache.add_argument("--no-cache", action="store_true", help="keep no features")


def _head_arguments(group: argparse._ArgumentGroup) -> None:
    hidden = group.add_mutually_exclusive_group()
    hidden.add_argument(
        "--hidden-dim",
        type=positive,
        nargs="+",
        metavar="N",
        help="of each hidden layer (default: 256)",
    )
    hidden.add_argument("--linear", action="store_true", help="no hidden layer")
    group.add_argument(
        "--init",
        choices=("zero-shot",),
        help="begin a linear head with what the encoder's text tower makes of the labels, if that helps",
    )
    group.add_argument(
        "--templates",
        nargs="+",
        metavar="TEXT",
        help="prompts with {} where the label goes (default: 'a photo of a {}')",
    )
    group.add_argument(
        "--pull",
        type=number(0, or_equal=True),
        metavar="N",
        help="strength that holds the head to its zero-shot start (default: the best of 100, 10 and 1)",
    )
    group.add_argument("--activation", choices=ACTIVATIONS, help=f"(default: {_ACTIVATION})")
    group.add_argument("--dropout", type=number(0, 1, or_equal=True), help=f"(default: {_DROPOUT})")


def _loop_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--epochs", type=positive, default=100, metavar="N", help=DEFAULT)
    group.add_argument("--lr", type=number(0), help=f"learning rate (default: {_RATE:g}, with --init {_START_RATE:g})")
    group.add_argument("--batch-size", type=positive, default=32, metavar="N", help=DEFAULT)
    group.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help=DEFAULT)
    group.add_argument("--weight-decay", type=number(0, or_equal=True), default=0.0, help=DEFAULT)
    group.add_argument("--schedule", choices=SCHEDULES, default="step", help=f"of the learning rate {DEFAULT}")
    group.add_argument("--step-size", type=positive, default=40, metavar="N", help=f"epochs between steps {DEFAULT}")
    group.add_argument("--gamma", type=number(0), default=0.5, help=f"factor of a step {DEFAULT}")
    group.add_argument("--standardise", action="store_true", help="learn on features of mean 0 and deviation 1")
    group.add_argument("--patience", type=positive, metavar="N", help="stop N epochs after the lowest validation loss")
    group.add_argument("--balanced", action="store_true", help="rare labels weigh more in the loss")
    group.add_argument("--label-smoothing", type=number(0, 1, or_equal=True), default=0.0, help=DEFAULT)
    group.add_argument("--seed", type=seed, default=0, help=f"of split, weights and order {DEFAULT}")
    group.add_argument("--sweep", action="store_true", help="first try learning rates, weight decays and widths")
    group.add_argument("--resume", action="store_true", help="go on from the checkpoint of an interrupted run")


def _judging_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--no-calibration", action="store_true", help="leave the temperature at 1")
    group.add_argument(
        "--operating-point",
        type=_rule,
        default=OperatingRule(),
        metavar="RULE",
        help=f"how thresholds are chosen: most-probable, youden, sensitivity=SHARE, specificity=SHARE {DEFAULT}",
    )
    group.add_argument("--positive", metavar="LABEL", help="of two labels the one looked for (default: the last)")
    group.add_argument("--report", type=Path, metavar="DIR", help="write figures and an HTML page")
    group.add_argument("--tensorboard", type=Path, metavar="DIR", help="write curves for TensorBoard")
    group.add_argument(
        "--explain-preprocessing", type=Path, metavar="IMAGE", help="train nothing: draw what the encoder gets to see"
    )


def _rule(text: str) -> OperatingRule:
    try:
        return OperatingRule.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _check_combination(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.data is None and args.explain_preprocessing is None:
        parser.error("DATA is missing")
    if args.data is not None and args.explain_preprocessing is not None:
        parser.error("--explain-preprocessing takes an image and no DATA")
    if args.text_column is not None and args.explain_preprocessing is not None:
        parser.error("--explain-preprocessing draws an image, and reads no --text-column")
    if args.text_column is not None and args.data is not None and args.data.is_dir():
        parser.error("--text-column names a column of a CSV file, and DATA is a folder")
    if args.val_fraction + args.test_fraction >= 1:
        parser.error("--val-fraction and --test-fraction leave nothing to learn from")


def _check_start(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.init is None:
        for name in ("templates", "pull"):
            if getattr(args, name) is not None:
                parser.error(f"--{name} needs --init zero-shot")
        return
    refused = {
        "--hidden-dim: words make a linear head": args.hidden_dim is not None,
        "--activation, which stands behind hidden layers": args.activation is not None,
        "--dropout, which stands behind hidden layers": args.dropout is not None,
        "--feature pooled: only the projected feature shares a space with text": args.feature == "pooled",
        "--task regression: its values have no words": args.task == REGRESSION,
        "--standardise": args.standardise,
        "--text-column: words are of pictures alone": args.text_column is not None,
        "--unfreeze": args.unfreeze is not None,
        "--sweep": args.sweep,
        "--resume": args.resume,
        "--tensorboard": args.tensorboard is not None,
    }
    for option, given in refused.items():
        if given:
            parser.error(f"--init zero-shot does not go with {option}")


def data_options(args: argparse.Namespace, device: str) -> DataOptions:
    """Which images are used, and how."""
    from clip_export.training.preparation import DataOptions

    return DataOptions(
        task=args.task,
        groups=args.groups,
        val_fraction=args.val_fraction,
        test_fraction=args.test_fraction,
        shots=args.shots,
        views=args.augment,
        seed=args.seed,
        batch_size=args.batch_size,
        device=device,
        backend=args.backend,
        text_column=args.text_column,
        all_files=args.all_files,
    )


def training_options(args: argparse.Namespace) -> TrainingOptions:
    """How the head is trained."""
    from clip_export.training.options import TrainingOptions

    return TrainingOptions(
        epochs=args.epochs,
        learning_rate=args.lr,
        batch_size=args.batch_size,
        optimizer=args.optimizer,
        weight_decay=args.weight_decay,
        schedule=args.schedule,
        step_size=args.step_size,
        gamma=args.gamma,
        standardise=args.standardise,
        hidden_dim=() if args.linear else tuple(args.hidden_dim or _HIDDEN),
        activation=args.activation or _ACTIVATION,
        dropout=_DROPOUT if args.dropout is None else args.dropout,
        patience=args.patience,
        class_weights="balanced" if args.balanced else "none",
        label_smoothing=args.label_smoothing,
        seed=args.seed,
    )
