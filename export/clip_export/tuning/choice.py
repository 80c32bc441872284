"""Which of the measured files is chosen, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from clip_export.tuning.candidates import Found
from clip_export.tuning.options import Limits
from clip_toolkit.errors import TuningError

KNEE_DROP = 0.05
"""What accuracy may fall below the best unasked: beside a file that is fast and bad, a bad one looks like a knee."""


class Choice(NamedTuple):
    """The file that was chosen, and the rule that did."""

    found: Found
    why: str


def front(found: Sequence[Found]) -> list[Found]:
    """Return those that no other one beats in both accuracy and time, the fastest first."""
    best: list[Found] = []
    for candidate in sorted(found, key=lambda item: (item.seconds, -item.accuracy.value)):
        if not best or candidate.accuracy.value > best[-1].accuracy.value:
            best.append(candidate)
    return best


def choose(found: Sequence[Found], limits: Limits, reference: Found) -> Choice:
    """Choose by limits, or without any the knee.

    Args:
        found: measured candidates.
        limits: what is asked for.
        reference: the whole first encoder in float32, that the file may have to be no worse than.

    Raises:
        TuningError: no candidate keeps to the limits; the message names the nearest.
    """
    within = [item for item in found if limits.max_latency is None or item.seconds <= limits.max_latency]
    if not within:
        fastest = min(found, key=lambda item: item.seconds)
        raise TuningError(
            f"--max-latency: no candidate takes at most {1e3 * (limits.max_latency or 0):.3g} ms here; the nearest is "
            f"{fastest} with {1e3 * fastest.seconds:.3g} ms. Allow that, or try a smaller encoder."
        )
    small = [item for item in within if limits.max_size is None or item.bytes <= limits.max_size]
    if not small:
        smallest = min(within, key=lambda item: item.bytes)
        raise TuningError(
            f"--max-size: no candidate has at most {(limits.max_size or 0) / 1e6:.3g} MB; the nearest is {smallest} "
            f"with {smallest.bytes / 1e6:.3g} MB. Allow that, or try a smaller encoder."
        )
    best = max(small, key=lambda item: (item.accuracy.value, -item.seconds))
    least = _least_accuracies(best, limits, reference)
    if least:
        near = [item for item in small if item.accuracy.value >= max(least.values()) - 1e-9]
        if not near:
            raise TuningError(
                f"--no-worse: none of the files within the limits reaches the {reference.accuracy.value:.1%} of "
                f"{reference}; the nearest is {best} with {best.accuracy.value:.1%}. Allow more time or size, or leave "
                "--no-worse out."
            )
        return Choice(min(near, key=lambda item: item.seconds), f"the fastest {' and '.join(least)}")
    if limits.max_latency is None and limits.max_size is None:
        near = [item for item in small if item.accuracy.value >= best.accuracy.value - KNEE_DROP]
        found_knee = knee(small)
        return Choice(found_knee if found_knee in near else knee(near), "the knee of accuracy against time")
    return Choice(best, "the most accurate within the limits")


def _least_accuracies(best: Found, limits: Limits, reference: Found) -> dict[str, float]:
    """Return what accuracy must be at least, by the words for it."""
    least = {}
    if limits.max_drop is not None:
        least[f"within {limits.max_drop:g} points of the best"] = best.accuracy.value - limits.max_drop / 100
    if limits.no_worse:
        least["no worse than the whole encoder"] = reference.accuracy.value
    return least


def knee(found: Sequence[Found]) -> Found:
    """Return the knee of the front: farthest above the line between its ends, times on a logarithmic scale.

    Where nothing lies above that line, it is the most accurate end.

    After Satopää et al. 2011, "Finding a Kneedle in a Haystack" (doi:10.1109/ICDCSW.2011.20), without its smoothing.
    """
    points = front(found)
    times = [math.log(item.seconds) for item in points]
    gains = [item.accuracy.value for item in points]
    if len(points) == 1:
        return points[0]

    def height(index: int) -> float:
        rise = (gains[index] - gains[0]) / (gains[-1] - gains[0])
        return rise - (times[index] - times[0]) / (times[-1] - times[0])

    return points[max(range(len(points)), key=lambda index: (round(height(index), 9), index))]
