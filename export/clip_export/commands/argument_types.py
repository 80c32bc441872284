"""What the command lines of this package share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from clip_export.extra import require_export_extra
from clip_toolkit.version import __version__


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that name an encoder, and ``--version``."""
    parser.add_argument("--revision", help="branch, tag or commit of the encoder on the hub")
    parser.add_argument(
        "--feature",
        choices=("pooled", "projected"),
        help="what the head reads (default: what it was trained on, or pooled)",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")


def positive(text: str) -> int:
    """An argument type: a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def share(text: str) -> float:
    """An argument type: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be at least 0 and at most 1")
    return value


def seed(text: str) -> int:
    """An argument type: what both NumPy and PyTorch take for a seed."""
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError("must be at least 0 and below 2**63")
    return value


def number(above: float, below: float = math.inf, *, or_equal: bool = False) -> Callable[[str], float]:
    """An argument type: a number above ``above`` (or equal to it) and below ``below``."""

    def parse(text: str) -> float:
        value = float(text)
        if not (above < value < below or (or_equal and value == above)):
            raise argparse.ArgumentTypeError(
                f"must be {'at least' if or_equal else 'above'} {above:g} and below {below:g}"
            )
        return value

    return parse


def prepare_libraries() -> None:
    """Check that the extra is installed, and keep its libraries quiet: users asked us a question, not them.

    Raises:
        MissingDependencyError: a package of it is missing.
    """
    require_export_extra()
    import logging
    import warnings

    import transformers

    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in ("torch.onnx", "onnxscript", "onnx_ir", "onnxruntime.quantization"):
        logging.getLogger(name).setLevel(logging.ERROR)
