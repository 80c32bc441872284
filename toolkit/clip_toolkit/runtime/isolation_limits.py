"""What an image from a stranger may take; apart from the processes that hold it to that, for options need no numpy."""

from __future__ import annotations

from dataclasses import dataclass

WAITING = 10
"""How many times its processor time an image may take in all, such as waiting for a disk or for other programs."""


@dataclass(frozen=True)
class Limits:
    """What one image may take.

    Attributes:
        memory: MiB beyond what an idle process has. A JPEG of 24 million pixels needs 128.
        seconds: of processor time; `WAITING` times as long in all.
    """

    memory: int = 512
    seconds: int = 20
