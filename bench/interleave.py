"""Contenders in turn, a few runs each, round after round: what the machine does meanwhile meets all of them alike."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contenders import Contender

WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Timing:
    """One contender at one batch size.

    Attributes:
        name: of the contender.
        batch: images in a run.
        rounds: median seconds of a run in each round.
        load: seconds to open it.
        peak: largest resident memory until it is warm, in bytes.
        size: of its file in bytes, or None.
    """

    name: str
    batch: int
    rounds: tuple[float, ...]
    load: float
    peak: int
    size: int | None

    @property
    def per_image(self) -> float:
        """Median seconds of an image."""
        return statistics.median(self.rounds) / self.batch

    def speed_over(self, other: Timing) -> float:
        """How many times faster than another one: median of the ratios of each round."""
        return statistics.median(b / a for a, b in zip(self.rounds, other.rounds, strict=True))


_TURN = 0.8  # seconds of a turn that are aimed at; so long for fast contenders, too, that the processor is wide awake
_FEWEST_RUNS = 3
_REST = 0.2  # seconds between turns, until the threads of the last contender have stopped spinning


def measure(entries: Sequence[Contender], batch: int, threads: int, rounds: int, worker: Path = WORKER) -> list[Timing]:
    """Start every contender in a process of a worker script, then time them in turns of about equal length."""
    workers = [_start(entry, batch, threads, worker) for entry in entries]
    facts = [json.loads(_line(process)) for process in workers]
    counts = [max(_FEWEST_RUNS, round(_TURN / fact["warm"])) for fact in facts]
    times: list[list[float]] = [[] for _ in entries]
    for _ in range(rounds):
        for process, runs, taken in zip(workers, counts, times, strict=True):
            assert process.stdin is not None
            time.sleep(_REST)
            process.stdin.write(f"{runs}\n")
            process.stdin.flush()
            taken.append(statistics.median(json.loads(_line(process))))
    for process in workers:
        process.communicate()
    return [
        Timing(entry.name, batch, tuple(taken), fact["load"], fact["peak"], fact["size"])
        for entry, taken, fact in zip(entries, times, facts, strict=True)
    ]


def _start(entry: Contender, batch: int, threads: int, worker: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", str(worker), entry.engine, str(entry.path), str(batch), str(threads)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def _line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError(f"a contender ended early: {worker.args}")
    return line
