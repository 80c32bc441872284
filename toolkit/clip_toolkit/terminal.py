"""Output that a terminal of any encoding can take."""

from __future__ import annotations

import io
import sys


def print_any_text() -> None:
    """Let labels and file names that the terminal's encoding lacks appear as escapes instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(*messages: str) -> None:
    """Print remarks of ``clip-infer`` on stderr, one line each."""
    for message in messages:
        print(f"clip-infer: {message}", file=sys.stderr)
