"""``clip-app``: a model file in the browser."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clip_app.commands import PROGRAM
from clip_toolkit.terminal import as_command

if TYPE_CHECKING:
    from clip_app.options import AppOptions


def run(options: AppOptions) -> int:
    """Show the page until SIGTERM or SIGINT, and return the exit code."""
    with tempfile.TemporaryDirectory(prefix="clip-app-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # before the import: nobody's images stay behind
        try:
            from clip_app.app import serve
        except ImportError as error:
            from clip_toolkit.errors import MissingDependencyError

            raise MissingDependencyError(
                f"the app needs the package {error.name}. Install: pip install 'clip-toolkit[cpu,app]'"
            ) from error
        serve(options)
    return 0


@as_command(PROGRAM)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    from clip_app.options import AppOptions
    from clip_toolkit.commands.running_options import MODEL_HELP
    from clip_toolkit.options import Parser, parse_options

    parser = Parser(
        prog=PROGRAM,
        description="Show a model file in the browser, on this machine: classify, correct, retrain, search.",
        epilog=f"{MODEL_HELP.replace('--model', 'MODEL')} Exit code: 0 ended by a signal, 1 could not start, "
        "2 usage error.",
    )
    options = parse_options(parser, AppOptions, argv)
    warnings.filterwarnings("ignore")  # what is wrong with an image is said on the page
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
