"""Progress on stderr: a bar on terminals, and elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from clip_toolkit.terminal import say

INTERVAL = 30.0
"""Seconds between two lines, and before the first: of short work the result says enough."""


class Advance(Protocol):
    """Moves the progress, and says something beside it."""

    def __call__(self, count: int, text: str = "") -> None:
        """Count ``count`` more steps as done."""


@contextmanager
def bar(title: str, total: int, clock: Callable[[], float] = time.monotonic) -> Iterator[Advance]:
    """Show the progress of ``total`` steps while the block runs; ``clock`` gives seconds."""
    if not sys.stderr.isatty():
        yield _lines(title, total, clock)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[text]}"), console=Console(stderr=True)) as shown:
        task = shown.add_task(title, total=total, text="")

        def advance(count: int, text: str = "") -> None:
            shown.update(task, advance=count, text=text)

        yield advance


def _lines(title: str, total: int, clock: Callable[[], float]) -> Advance:
    done, said = 0, clock()

    def advance(count: int, text: str = "") -> None:
        nonlocal done, said
        done += count
        if clock() - said >= INTERVAL:
            said = clock()
            say(f"{title}: {done} of {total}" + (f", {text}" if text else ""))

    return advance
