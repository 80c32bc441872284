"""Parsers of the numbers that options take; what they do not accept is a ValueError that says what was expected."""

from __future__ import annotations

import math
from collections.abc import Callable


def whole(least: int = 1, most: int = 2**31 - 1) -> Callable[[str], int]:
    """Return a parser of a whole number from ``least`` to ``most``."""

    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(most)) else least - 1
        if not least <= number <= most:
            raise ValueError(f"expected a whole number from {least} to {most}, got {text!r}")
        return number

    return parse


def number(expected: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
    """Return a parser of a number; ``expected`` says in words what ``fits`` demands."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and fits(value)):
            raise ValueError(f"expected a number {expected}, got {text!r}")
        return value

    return parse


POSITIVE = number("above 0", lambda value: value > 0)
NOT_NEGATIVE = number("of at least 0", lambda value: value >= 0)
SHARE = number("from 0 to 1", lambda value: 0 <= value <= 1)
PROPER_SHARE = number("from 0 to below 1", lambda value: 0 <= value < 1)
