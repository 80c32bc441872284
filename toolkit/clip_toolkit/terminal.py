"""What the command lines share: results and remarks that no terminal obeys, and the end of a command."""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import TextIO, cast

from clip_toolkit.errors import ClipToolkitError, OutputError
from clip_toolkit.signals import exit_code_of, sigterm_raises

_UNSEEN = frozenset(["Cc", "Cf", "Cs", "Zl", "Zp"])
"""Unicode categories: control and format characters, halves of pairs, ends of lines and paragraphs."""

_PROGRAM = ContextVar("_PROGRAM", default="clip-toolkit")


def is_unseen(letter: str) -> bool:
    """Tell whether a terminal would obey a character, or hide it, instead of showing it."""
    return unicodedata.category(letter) in _UNSEEN


def printable(text: str) -> str:
    """Return text as one line, with escapes for what a terminal would obey: labels and file names may hold any."""
    return "".join(letter.encode("unicode_escape").decode() if is_unseen(letter) else letter for letter in text)


def takes_any_text() -> bool:
    """Tell whether standard output is UTF-8."""
    return codecs.lookup(getattr(sys.stdout, "encoding", None) or "ascii").name == "utf-8"


def write(*lines: str) -> None:
    """Print lines of data on standard output as they are.

    Raises:
        OutputError: standard output is closed, or cannot be written to.
        BrokenPipeError: its reader has gone.
    """
    if sys.stdout is None:
        raise OutputError("the output cannot be written: standard output is closed")
    try:
        for line in lines:
            print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"the output cannot be written ({error.strerror})") from error


def show(*lines: str) -> None:
    """Print lines of results on standard output, with escapes for what a terminal would obey.

    Raises:
        OutputError: standard output is closed, or cannot be written to.
        BrokenPipeError: its reader has gone.
    """
    write(*map(printable, lines))


def say(*messages: str) -> None:
    """Print remarks of the running command on stderr, one line each, with escapes for what a terminal would obey."""
    for message in messages:
        print(f"{_PROGRAM.get()}: {printable(message)}", file=sys.stderr)


def standard_input() -> TextIO:
    """Return standard input.

    Raises:
        ClipToolkitError: it is closed.
    """
    if sys.stdin is None:
        raise ClipToolkitError("standard input is closed: name files instead")
    return sys.stdin


def run_command(program: str, run: Callable[[], int]) -> int:
    """Run a command and return its exit code; every error becomes one line on stderr.

    0 and 1 are the command's own, 1 also stands for an error; 130 and 143: interrupted by SIGINT and SIGTERM; 141: the
    reader of the output has gone. Usage errors leave as the parser's SystemExit.
    """
    _PROGRAM.set(program)
    _prepare_streams()
    try:
        try:
            with sigterm_raises():
                return run()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone: nothing more to say
        code = 141
    except ClipToolkitError as error:
        say(str(error))
        code = 1
    except KeyboardInterrupt as interrupt:
        say("interrupted")
        code = exit_code_of(interrupt)
    except OSError as error:
        place = "the output cannot be written" if error.filename is None else str(error.filename)
        say(f"{place} ({error.strerror})")
        code = 1
    _drop_unwritten()
    return code


def as_command(program: str) -> Callable[[Callable[[Sequence[str] | None], int]], Callable[..., int]]:
    """Decorate a function of the arguments after the program's name: `run_command` runs it, by default on sys.argv."""

    def decorate(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
        @wraps(main)
        def command(argv: Sequence[str] | None = None) -> int:
            return run_command(program, lambda: main(argv))

        return command

    return decorate


class _Remarks(io.FileIO):
    """Standard error that may be full or closed: a lost remark must not end the work that it is about."""

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]  # of any buffer
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _prepare_streams() -> None:
    """Keep the work independent of how the standard streams are set up."""
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:  # a file opened there would get the remarks
        os.set_inheritable(free, True)
    os.close(free)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        encoding = getattr(sys.stderr, "encoding", "utf-8")
        remarks = io.BufferedWriter(cast("io.RawIOBase", _Remarks(2, "w", closefd=False)))
        sys.stderr = io.TextIOWrapper(remarks, encoding, "backslashreplace", line_buffering=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_unwritten() -> None:
    """Let the interpreter end without trying again to write what could not be written."""
    output = sys.__stdout__
    if output is None or sys.stdout is not output:
        return
    try:
        output.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
