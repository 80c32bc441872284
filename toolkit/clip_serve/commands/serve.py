"""``clip-serve``: model files over HTTP."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clip_serve.commands import PROGRAM
from clip_toolkit.terminal import as_command, say

if TYPE_CHECKING:
    from clip_serve.options import ServeOptions


def run(options: ServeOptions) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code."""
    try:
        from clip_serve.app import create_app
        from clip_serve.server import bind, serve
    except ImportError as error:
        from clip_toolkit.errors import MissingDependencyError

        raise MissingDependencyError(
            f"serving needs the package {error.name}. Install: pip install 'clip-toolkit[serve]'"
        ) from error
    with bind(options.address) as listener:  # before the models, which take longer to open
        app = create_app(options)
        say(*app.state.service.notes())
        serve(app, listener, options)
    return 0


@as_command(PROGRAM)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    from clip_serve.options import ServeOptions
    from clip_toolkit.commands.running_options import MODEL_HELP
    from clip_toolkit.options import Parser, parse_options

    parser = Parser(
        prog=PROGRAM,
        description="Serve model files of clip-export over HTTP. SIGHUP reads them anew, SIGTERM ends gracefully.",
        epilog=f"{MODEL_HELP.replace('--model', 'MODEL')} Exit code: 0 ended by a signal, 1 could not serve, "
        "2 usage error.",
    )
    options = parse_options(parser, ServeOptions, argv)
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image is said in its response
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
