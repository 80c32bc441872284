"""A progress bar on stderr, on terminals only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Advance(Protocol):
    """Moves the bar, and says something beside it."""

    def __call__(self, count: int, text: str = "") -> None:
        """Count ``count`` more steps as done."""


@contextmanager
def bar(title: str, total: int) -> Iterator[Advance]:
    """Show a bar of ``total`` steps while the block runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, TextColumn("{task.fields[text]}"), console=console, disable=not sys.stderr.isatty()
    ) as shown:
        task = shown.add_task(title, total=total, text="")

        def advance(count: int, text: str = "") -> None:
            shown.update(task, advance=count, text=text)

        yield advance
