"""SIGINT and SIGTERM: the first one ends the run after the batch in flight, the second one ends it at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from clip_toolkit.signals import is_ignored

_Item = TypeVar("_Item")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """A context in which the two signals ask to stop instead of stopping.

    Attributes:
        signum: the signal that came, or ``None``.
    """

    def __init__(self, on_request: Callable[[], None]) -> None:
        """Remember what to do, such as saying so, when the first signal comes."""
        self.signum: int | None = None
        self._on_request = on_request
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take over both signals, but for those that are ignored; possible in the main thread only."""
        self._before = {signum: signal.signal(signum, self._asked) for signum in _SIGNALS if not is_ignored(signum)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give both signals back."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def until(self, items: Iterable[_Item], batch_size: int) -> Iterator[_Item]:
        """Pass items on until a signal came, and then up to the end of the batch: whole batches can be resumed."""
        for index, item in enumerate(items):
            if self.signum is not None and index % batch_size == 0:
                return
            yield item

    def _asked(self, signum: int, _: FrameType | None) -> None:
        if self.signum is not None:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)  # so that the shell sees what ended us
            return
        self.signum = signum
        self._on_request()
