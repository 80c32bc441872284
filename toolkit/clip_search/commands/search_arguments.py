"""The command line of ``clip-search``: its commands and their options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from clip_search.results.duplicates import THRESHOLD
from clip_search.store.database import TIMEOUT
from clip_toolkit.commands.infer_arguments import positive
from clip_toolkit.files.locate import ENVIRONMENT_VARIABLE
from clip_toolkit.runtime.devices import DEVICES
from clip_toolkit.version import __version__

DEFAULT_INDEX = Path(".clip-search")
DEFAULT_TEXT_MODEL = Path("text.onnx")
_LONGEST = 86_400  # a day; SQLite counts milliseconds in 32 bits
FORMATS = ("table", "json", "jsonl", "csv")

_EPILOG = (
    f"Without --model: ${ENVIRONMENT_VARIABLE}, then model.onnx in this folder, then the built-in demo. "
    "Exit code: 0 all fine, 1 something failed, 2 usage, 130 and 143 interrupted."
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; usage errors exit with code 2."""
    parser = argparse.ArgumentParser(
        prog="clip-search",
        description="Search a folder of images by picture or by words, with the embeddings of a model file.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_index(commands.add_parser("index", help="bring the index of a folder up to date", epilog=_EPILOG))
    query = commands.add_parser("query", help="find the images most like a picture or a description", epilog=_EPILOG)
    _add_query(query)
    _add_duplicates(commands.add_parser("duplicates", help="list images that are the same, or nearly"))
    args = parser.parse_args(argv)
    if args.command == "query" and (args.image is None) == (args.text is None):
        query.error("name one IMAGE, or describe it with --text")
    if args.command == "query" and args.text_model and args.text is None:
        query.error("--text-model reads what --text says: use both")
    return args


def _add_index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", nargs="?", type=Path, metavar="DIR", help="folder of images (default: the last one)")
    _add_place(parser)
    _add_running(parser)
    parser.add_argument("--retry", action="store_true", help="try again the files that could not be decoded")
    parser.add_argument("--approximate", action="store_true", help="build the approximate index, too (needs usearch)")


def _add_query(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="image file to compare with")
    parser.add_argument("--text", metavar="WORDS", help="description to compare with")
    _add_place(parser)
    _add_running(parser)
    parser.add_argument(
        "--text-model",
        type=Path,
        metavar="FILE",
        help=f"file of clip-export --text-tower (default: {DEFAULT_TEXT_MODEL})",
    )
    parser.add_argument("--top-k", type=positive, default=10, metavar="N", help="images to find (default: 10)")
    parser.add_argument("--approximate", action="store_true", help="ask a usearch graph instead of all embeddings")
    _add_output(parser)


def _add_duplicates(parser: argparse.ArgumentParser) -> None:
    _add_place(parser)
    parser.add_argument(
        "--threshold",
        type=_cosine,
        default=THRESHOLD,
        metavar="COSINE",
        help="similarity from which two images are nearly the same; 1 for equal files only (default: %(default)s)",
    )
    _add_output(parser)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--index", type=Path, default=DEFAULT_INDEX, metavar="PATH", help="folder of the index (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=TIMEOUT,
        metavar="SECONDS",
        help="how long to wait while another process writes the index (default: %(default)g)",
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="model file")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where to run (default: %(default)s)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all usable cores)")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, default="table", help="form of the output (default: table)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the images found, too")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= _LONGEST:
        raise argparse.ArgumentTypeError(f"expected seconds from 0 to {_LONGEST:,}, got {text!r}")
    return value


def _cosine(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and up to 1, got {text!r}")
    return value
