"""What the command lines share: output that a terminal of any encoding can take, and errors of one line."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata
from collections.abc import Callable

from clip_toolkit.errors import ClipToolkitError

_UNSEEN = frozenset(["Cc", "Cf", "Cs", "Zl", "Zp"])
"""Unicode categories: control and format characters, halves of pairs, ends of lines and paragraphs."""


def print_any_text() -> None:
    """Let labels and file names that the terminal's encoding lacks appear as escapes instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Text in one line, with escapes for what a terminal would obey instead of showing it: file names may hold any."""
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _UNSEEN else letter
        for letter in text
    )


def takes_any_text() -> bool:
    """Whether standard output is UTF-8."""
    return codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"


def say(*messages: str, program: str = "clip-infer") -> None:
    """Print remarks of a program on stderr, one line each."""
    for message in messages:
        print(f"{program}: {printable(message)}", file=sys.stderr)


def exit_code(program: str, run: Callable[[], int]) -> int:
    """Run a command line; errors become one line on stderr and exit code 1."""
    print_any_text()
    try:
        return run()
    except ClipToolkitError as error:
        say(str(error), program=program)
        return 1
    except KeyboardInterrupt:
        say("interrupted", program=program)
        return 130
    except BrokenPipeError:  # the reader of our output has left: nothing more to say
        sys.stdout = None
        return 1
    except OSError as error:
        sys.stdout = None
        say(f"the output cannot be written ({error.strerror})", program=program)
        return 1
