"""``bench/prepared.py MODEL ...``: what ``clip-infer --prepare`` saves: time to open, and memory of two processes.

A round opens the file in two processes as usual, without laying weights out, and prepared, one way after the other.
Both run an image; while both live, the memory is read that each has for itself. Seconds are processor time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from clip_toolkit.runtime.prepared import prepare

_ROUNDS = 5

_OPEN = """
import sys, time
import numpy as np, onnxruntime
from clip_toolkit import load
start = time.process_time()
classifier = load(sys.argv[1], "cpu", prepack=sys.argv[2] == "True")
spent = time.process_time() - start
size = classifier.spec.preprocessing.size
classifier.run(np.zeros((1, size, size, 3), np.uint8))
print(spent, flush=True)
sys.stdin.read()
"""

WAYS = {"as usual": (True, False), "prepack=False": (False, False), "prepared": (True, True)}
"""Whether weights are laid out anew, and whether they are prepared."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench/prepared.py", description="Measure prepared weights.")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    print("| file | | seconds | x | private MiB of each process |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as cache:
        for model in parser.parse_args().models:
            os.environ["XDG_CACHE_HOME"] = cache
            prepare(model)
            found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
            for _ in range(_ROUNDS):
                for way, (prepack, prepared) in WAYS.items():
                    os.environ["XDG_CACHE_HOME"] = cache if prepared else f"{cache}/none"
                    found[way] += _two(model, prepack=prepack)
            usual = statistics.median(seconds for seconds, _ in found["as usual"])
            for way, figures in found.items():
                seconds, private = (statistics.median(column) for column in zip(*figures, strict=True))
                print(f"| {model.name} | {way} | {seconds:.2f} | {seconds / usual:.2f} | {private:.0f} |", flush=True)


def _two(model: Path, *, prepack: bool) -> list[tuple[float, float]]:
    """Return seconds to open and private MiB of two processes that have the file open at the same time."""
    command = [sys.executable, "-W", "ignore", "-c", _OPEN, str(model), str(prepack)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    seconds = [float(process.stdout.readline()) for process in processes if process.stdout]
    private = [_private(process.pid) for process in processes]
    for process in processes:
        process.communicate()
    return list(zip(seconds, private, strict=True))


def _private(pid: int) -> float:
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith(("Private_Clean", "Private_Dirty"))) / 1024


if __name__ == "__main__":
    main()
