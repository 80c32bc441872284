"""``make bench``: measure side by side and write docs/benchmarks.md, section by section."""

from __future__ import annotations

import argparse
import logging
import re
import warnings
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from cold import measure_apart
from contenders import contenders
from interleave import measure
from operators import time_by_operator
from quantized import quantized
from report import cold_table, encoder_table, int8_table, preface, resize_table, shapes_table, throughput_table
from resize import measure_resize
from sections import replaced_section
from shapes import exports_apart
from small import small_table, time_small
from throughput import measure_throughput

from clip_toolkit.runtime.processor import usable_cores
from encoders import SUBJECTS

ROOT = Path(__file__).parents[1]
BATCHES = (1, 8)

Part = Callable[[int], tuple[str, Iterable[str]]]
"""Measures with so many rounds and gives a section's title and lines."""


def main() -> None:
    """Measure and write."""
    args = parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # of the exporters' tracing
    old = args.out.read_text(encoding="utf-8") if args.out.exists() else ""
    page = preface() + "".join(re.findall(r"^## .*?(?=^## |\Z)", f"\n{old}", re.MULTILINE | re.DOTALL))
    for name in args.only:
        title, lines = PARTS[name](args.rounds)
        page = replaced_section(page, title, [*lines, "", f"Measured {datetime.now(UTC):%Y-%m-%d}."])
        args.out.write_text(page, encoding="utf-8")
        print(f"wrote {title}", flush=True)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="bench/run.py", description="Measure side by side with peers.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="sections (default: all)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of turns (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="page to write")
    return parser.parse_args()


def _encoder(name: str) -> Part:
    def part(rounds: int) -> tuple[str, Iterable[str]]:
        subject = SUBJECTS[name]
        entries = contenders(subject, _folder(name))
        rows = [row for batch in BATCHES for row in measure(entries, batch, usable_cores(), rounds)]
        return subject.title, encoder_table(rows)

    return part


def _int8(rounds: int) -> tuple[str, Iterable[str]]:
    threads, files = usable_cores(), quantized(_folder("int8"))
    rows = [row for batch in BATCHES for row in measure(files.contenders, batch, threads, rounds)]
    operators = {batch: time_by_operator(files.ours, batch, threads) for batch in BATCHES}
    return "int8, CLIP ViT-B/32", int8_table(files, rows, operators)


def _shapes(_: int) -> tuple[str, Iterable[str]]:
    return "True shapes through the commands", shapes_table(exports_apart(_folder("shapes")))


def _small(rounds: int) -> tuple[str, Iterable[str]]:
    threads = usable_cores()
    return "Which encoder", small_table(time_small(_folder("small"), threads, rounds), threads)


def _resize(_: int) -> tuple[str, Iterable[str]]:
    return "Resize to 224, one image", resize_table(measure_resize(usable_cores()))


def _cold(_: int) -> tuple[str, Iterable[str]]:
    quantized(_folder("int8"))
    return "One 640x480 JPEG in a fresh process, CLIP ViT-B/32", cold_table(measure_apart(_folder("int8")))


def _throughput(_: int) -> tuple[str, Iterable[str]]:
    quantized(_folder("int8"))
    return "From files to answers", throughput_table(measure_throughput(_folder("int8")))


def _folder(name: str) -> Path:
    folder = ROOT / "build" / "bench" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


PARTS: dict[str, Part] = {name: _encoder(name) for name in SUBJECTS} | {
    "int8": _int8,
    "shapes": _shapes,
    "small": _small,
    "resize": _resize,
    "cold": _cold,
    "throughput": _throughput,
}

if __name__ == "__main__":
    main()
