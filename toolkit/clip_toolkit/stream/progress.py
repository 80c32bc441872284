"""How far a run is: one line on a terminal, redrawn in place, and nothing elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

_SECONDS_BETWEEN_DRAWINGS = 0.1
_ERASE_LINE = "\r\x1b[K"  # ECMA-48, EL


class Progress:
    """Counts records; draws where the stream is a terminal."""

    def __init__(
        self,
        stream: TextIO,
        total: int | None = None,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
        *,
        quiet: bool = False,
    ) -> None:
        """Start counting.

        Args:
            stream: where to draw.
            total: number of images, where it is known.
            done: number of those that an earlier run did.
            clock: seconds, increasing.
            quiet: draw nothing.
        """
        self._stream, self._total, self._start, self._clock = stream, total, done, clock
        self._done, self._errors = done, 0
        self._began = self._drawn = clock()
        self._shown = stream.isatty() and not quiet

    def step(self, failed: bool) -> None:
        """Count one image."""
        self._done += 1
        self._errors += failed
        now = self._clock()
        if self._shown and now - self._drawn >= _SECONDS_BETWEEN_DRAWINGS:
            self._drawn = now
            self._stream.write(_ERASE_LINE + self.text(now))
            self._stream.flush()

    def text(self, now: float) -> str:
        """Format the line: count, share, rate, time left, errors."""
        rate = (self._done - self._start) / max(now - self._began, 1e-9)
        parts = [f"{self._done}" if self._total is None else f"{self._done}/{self._total}", f"{rate:.1f} images/s"]
        if self._total and rate:
            parts.append(f"{_minutes((self._total - self._done) / rate)} left")
        return ", ".join([*parts, f"{self._errors} errors"])

    def clear(self) -> None:
        """Make room for other output."""
        if self._shown:
            self._stream.write(_ERASE_LINE)
            self._stream.flush()


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
