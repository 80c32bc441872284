"""How long files take on this machine: measured in turns with one of them, so that what else runs meets both alike."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from clip_toolkit.runtime.processor import usable_cores
from clip_toolkit.runtime.session import open_graph

TOO_SCATTERED = 0.2
"""Scatter of times beyond which they are said to be of little worth: on an idle machine it is a few hundredths."""

_ROUNDS = 25
_TURN = 0.03  # seconds of a turn that are aimed at

Run = Callable[[], object]


def machine() -> str:
    """Name what a measured time depends on: processor, cores and runtime."""
    return f"{_processor()}, {usable_cores()} cores, {platform.system()}, ONNX Runtime {onnxruntime.__version__}"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def runner(path: Path, size: int, batch: int = 1) -> Run:
    """Open a file that takes images, and return a run of a batch of ``size`` pixels a side."""
    session, image = open_graph(path), np.zeros((batch, size, size, 3), np.uint8)
    return lambda: session.run(["logits"], {"image": image})


def timed_in_turns(reference: Run, other: Run, rounds: int = _ROUNDS) -> tuple[float, float, float]:
    """Return seconds of a run of the reference, how many of those the other one takes, and how far that scatters.

    Of each turn the fastest run counts, and of all rounds the median: what else runs only ever adds time. The scatter
    is the distance between the quartiles of the ratios, in terms of their median.
    """
    runs = reference, other
    counts = [_count(run) for run in runs]
    taken = np.array([[_seconds(run, count) for run, count in zip(runs, counts, strict=True)] for _ in range(rounds)])
    low, ratio, high = np.percentile(taken[:, 1] / taken[:, 0], [25, 50, 75])
    return float(np.median(taken[:, 0])), float(ratio), float((high - low) / ratio)


def _count(run: Run) -> int:
    run()  # warms up
    return max(3, min(200, int(_TURN / _seconds(run, 1))))


def _seconds(run: Run, count: int) -> float:
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)
