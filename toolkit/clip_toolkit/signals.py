"""SIGTERM, which batch systems and containers send, as an exception: what is unfinished is cleaned up as on Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM was received."""


def is_ignored(signum: int) -> bool:
    """Tell whether a signal is ignored, as SIGINT is by what a script starts with ``&``: the caller's wish stands."""
    return signal.getsignal(signum) == signal.SIG_IGN


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise `Terminated` in the main thread when SIGTERM is received while the block runs, unless it is ignored."""
    if threading.current_thread() is not threading.main_thread() or is_ignored(signal.SIGTERM):  # no handler to set
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def exit_code_of(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code that shells give for the signal behind an interrupt: 130, or 143 for SIGTERM."""
    return 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)


def _raise(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated
