"""Files with the pixels they must decode to, for the decode matrix.

Expected pixels follow from a file's samples by the rule of `clip_toolkit.images`, written down here a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_toolkit import ImageError, decode

HEIGHT, WIDTH = 37, 53
Pixels = NDArray[np.uint8]


class Case(NamedTuple):
    """A file, the pixels it must give, or the name by which it is refused."""

    name: str
    data: bytes
    expected: Pixels | None
    refusal: str = ""
    tolerance: int = 0


def samples(channels: int, kind: str, low: float = 0, high: float | None = None) -> NDArray[Any]:
    """Smooth samples over the whole range of a type, different in each channel."""
    dtype = np.dtype(kind)
    if high is None:
        high = 1.0 if dtype.kind == "f" else np.iinfo(dtype).max
    rows, columns, channel = np.mgrid[:HEIGHT, :WIDTH, :channels]
    waves = (np.sin(rows / 5 + channel) + np.cos(columns / 7 - 2 * channel) + 2) / 4
    waves = (waves - waves.min()) / np.ptp(waves)
    values = np.round(low + waves * (high - low)) if dtype.kind != "f" else low + waves * (high - low)
    return values.astype(dtype) if channels > 1 else values[..., 0].astype(dtype)


def scaled(values: NDArray[Any], low: float, high: float) -> Pixels:
    """The rule for deep samples, from the documentation."""
    return np.floor((values.astype(np.float64) - low) * 255 / (high - low) + 0.5).clip(0, 255).astype(np.uint8)


def rgb(eight: Pixels) -> Pixels:
    return np.repeat(eight[..., None], 3, axis=2) if eight.ndim == 2 else eight[..., :3]


def over_white(colour: Pixels, alpha: Pixels) -> Pixels:
    """Composite in floating point; Pillow may be off by one."""
    share = alpha[..., None].astype(np.float64) / 255
    return np.round(rgb(colour) * share + 255 * (1 - share)).astype(np.uint8)


def expected_grey(values: NDArray[Any]) -> Pixels:
    """Grey of any type by the table in the documentation."""
    kind = values.dtype
    if kind.kind == "u" and kind.itemsize <= 2:
        return rgb(scaled(values, 0, np.iinfo(kind).max))
    low, high = float(values.min()), float(values.max())
    whites = (1, 255, 65535) if kind.kind == "f" else (65535,) if kind.itemsize > 2 else ()
    white = next((white for white in whites if low >= 0 and high <= white), None)
    return rgb(scaled(values, *((low, high) if white is None else (0, white))))


def wrong(cases: Iterator[Case]) -> list[str]:
    """Those that give neither their pixels nor their refusal."""
    return [found for case in cases if (found := verdict(case))]


def verdict(case: Case) -> str:
    """Empty where a file gives the right pixels or its refusal."""
    try:
        pixels = decode(case.data)
    except ImageError as error:
        right = bool(case.refusal) and any(word in str(error) for word in case.refusal.split("|"))
        return "" if right else f"{case.name}: {error}"
    if case.expected is None:
        return f"{case.name}: was not refused"
    if pixels.shape != case.expected.shape:
        return f"{case.name}: {pixels.shape} instead of {case.expected.shape}"
    off = int(np.abs(pixels.astype(int) - case.expected).max())
    return "" if off <= case.tolerance else f"{case.name}: off by {off}"
