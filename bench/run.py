"""``make bench``: measure side by side and write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

from cold import measure_apart
from contenders import contenders
from encoders import SUBJECTS
from interleave import Timing, measure
from operators import time_by_operator
from quantized import Quantized, quantized
from report import render
from resize import measure_resize
from sections import section

from clip_toolkit.cores import usable_cores

ROOT = Path(__file__).parents[1]
BATCHES = (1, 8)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="bench/run.py", description="Measure side by side with peers.")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="encoders (default: all)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of turns (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="page to write")
    return parser.parse_args()


def main() -> None:
    """Measure and write."""
    args = parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # of the exporters' tracing
    threads = usable_cores()
    timings: dict[str, list[Timing]] = {}
    for name in args.only:
        subject = SUBJECTS[name]
        entries = contenders(subject, _folder(name))
        timings[subject.title] = []
        for batch in BATCHES:
            rows = measure(entries, batch, threads, args.rounds)
            timings[subject.title] += rows
            for row in rows:
                print(f"{subject.title}, batch {batch}, {row.name}: {row.per_image * 1e3:.1f} ms an image", flush=True)
    int8 = _int8(threads, args.rounds) if "b32" in args.only else None
    cold = measure_apart(_folder("b32")) if "b32" in args.only else []
    old = args.out.read_text(encoding="utf-8") if args.out.exists() else ""
    page = render(timings, int8, measure_resize(threads), cold)
    args.out.write_text(f"{page.rstrip()}\n\n{section(old, 'Training')}", encoding="utf-8")
    print(f"wrote {args.out}")


def _int8(threads: int, rounds: int) -> tuple[Quantized, list[Timing], dict[int, dict[str, float]]]:
    files = quantized(_folder("int8"))
    rows = [row for batch in BATCHES for row in measure(files.contenders, batch, threads, rounds)]
    for row in rows:
        print(f"int8, batch {row.batch}, {row.name}: {row.per_image * 1e3:.1f} ms an image", flush=True)
    return files, rows, {batch: time_by_operator(files.ours, batch, threads) for batch in BATCHES}


def _folder(name: str) -> Path:
    folder = ROOT / "build" / "bench" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main()
