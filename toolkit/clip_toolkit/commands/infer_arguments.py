"""The command line of ``clip-infer``: its options, and which of them go together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from clip_toolkit.files.locate import ENVIRONMENT_VARIABLE
from clip_toolkit.runtime.devices import DEVICES, RESIZES
from clip_toolkit.stream.inputs import STDIN
from clip_toolkit.stream.records import FORMATS
from clip_toolkit.version import __version__

_MOST = 1024  # threads, images a run, labels an image: beyond it lies a typing error, not a machine
_MOST_PIXELS = 2**40


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; usage errors exit with code 2."""
    parser = argparse.ArgumentParser(
        prog="clip-infer",
        description="Classify images with a model file of clip-export.",
        epilog=f"Without --model: ${ENVIRONMENT_VARIABLE}, then model.onnx in this folder, then the built-in demo. "
        "Exit code: 0 all fine, 1 some inputs failed or nothing could run, 2 usage, 130 and 143 interrupted.",
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="image files, folders (all that is in them and below), patterns such as 'photos/**/*.jpg', "
        "or - for the bytes of one image on standard input",
    )
    parser.add_argument("--stdin-paths", action="store_true", help="read more of those from standard input, one a line")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    _add_text(parser)
    _add_running(parser)
    _add_decoding(parser)
    _add_output(parser)
    _add_actions(parser)
    args = parser.parse_args(argv)
    _check_combination(parser, args)
    return args


def _add_text(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("text, for models that read one with each image")
    group.add_argument("--text", metavar="TEXT", help="the text that goes with every IMAGE")
    group.add_argument(
        "--texts",
        type=Path,
        metavar="FILE",
        help="in place of IMAGE: a CSV file with the columns path (from its own folder) and text",
    )
    group.add_argument("--text-column", metavar="NAME", help="name of its column of texts (default: text)")


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("running")
    group.add_argument("--model", help="model file")
    group.add_argument("--device", choices=DEVICES, default="auto", help="where to run (default: %(default)s)")
    group.add_argument("--batch-size", type=positive, default=8, metavar="N", help="images per run (default: 8)")
    group.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all usable cores)")
    group.add_argument(
        "--resize",
        choices=RESIZES,
        default="pillow",
        help="who resizes the image: Pillow, exactly, or the model's graph",
    )


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("decoding")
    group.add_argument(
        "--max-pixels", type=_pixels, metavar="N", help="refuse images of more pixels (default: 178956970)"
    )
    group.add_argument("--allow-truncated", action="store_true", help="use what there is of files that are cut short")
    group.add_argument("--fast-decode", action="store_true", help="scale JPEGs down while decoding: not quite exact")


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--format", choices=FORMATS, default="table", help="form of the output (default: table)")
    group.add_argument("--top-k", type=positive, default=3, metavar="N", help="labels per image (default: 3)")
    group.add_argument("--output", type=Path, metavar="FILE", help="write to a file, whole or not at all")
    group.add_argument("--resume", action="store_true", help="go on with FILE.part, which an interrupted run has left")


def _add_actions(parser: argparse.ArgumentParser) -> None:
    action = parser.add_argument_group("instead of classifying").add_mutually_exclusive_group()
    action.add_argument("--describe", nargs="?", const="", metavar="MODEL", help="print what the model file says")
    action.add_argument("--selftest", nargs="?", const="", metavar="MODEL", help="replay the model's golden vectors")
    action.add_argument("--doctor", nargs="?", const="", metavar="MODEL", help="check this machine and installation")


def _check_combination(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    action = next((name for name in (args.describe, args.selftest, args.doctor) if name is not None), None)
    has_images = bool(args.images or args.stdin_paths or args.texts)
    if action is None and not has_images:
        parser.error("name at least one IMAGE, or use --stdin-paths, --texts, --describe, --selftest or --doctor")
    if action is not None and (has_images or args.output or args.text is not None):
        parser.error("--describe, --selftest and --doctor take a model file, no images, no text and no --output")
    if action is not None and args.format not in ("table", "json"):
        parser.error("--describe, --selftest and --doctor have the formats table and json")
    _check_text(parser, args)
    if args.stdin_paths and STDIN in args.images:
        parser.error("- and --stdin-paths both read standard input: use one of them")
    if args.images.count(STDIN) > 1:
        parser.error("- can be read once only")
    if args.resume and not args.output:
        parser.error("--resume continues a file: name it with --output")
    if args.format == "parquet" and not args.output:
        parser.error("parquet is no text: name a file with --output")
    if action:
        args.model = action


def _check_text(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.texts and (args.images or args.stdin_paths or args.text is not None):
        parser.error("--texts names the images and their texts: leave out IMAGE, --stdin-paths and --text")
    if args.text_column and not args.texts:
        parser.error("--text-column names a column of --texts FILE")


def positive(text: str) -> int:
    """An argument type: a whole number of at least 1."""
    return _whole(text, _MOST)


def _pixels(text: str) -> int:
    return _whole(text, _MOST_PIXELS)


def _whole(text: str, most: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(most)) else 0
    if not 1 <= number <= most:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {most}, got {text!r}")
    return number
