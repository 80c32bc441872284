"""``make fuzz``: seeded mutants of small images and of model files; none may crash, hang or surprise.

Mutants run in blocks, each in a process of its own, which writes the number of a mutant before it touches it: a crash
of native code is found, named and gone past. Repeat one with ``--target NAME --only NUMBER``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mutants
from targets import TARGETS

BLOCK = 500
SECONDS = 10  # for one mutant


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="tests/fuzz/run.py", description="Feed the runtime seeded mutants.")
    parser.add_argument("--mutants", type=int, default=20_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="number of the first (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="at once (default: %(default)s)")
    parser.add_argument("--target", choices=TARGETS, help="one target alone")
    parser.add_argument("--only", type=int, help="one mutant of the target")
    parser.add_argument("--block", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run and return the exit code: 1 when anything was found."""
    args = parse_args()
    if args.only is not None:
        target = TARGETS[args.target]
        target.call(mutants.mutant(target.seeds(), args.only, target.ends))
        return 0
    if args.block:
        return run_block(args.target, *args.block)
    names = [args.target] if args.target else list(TARGETS)
    blocks = [block for name in names for block in _blocks(name, args.seed, args.mutants, bool(args.target))]
    with ThreadPoolExecutor(args.processes) as pool:
        found = [line for lines in pool.map(lambda block: watch(*block), blocks) for line in lines]
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{sum(end - start for _, start, end in blocks)} mutants, {len(found)} findings")
    return 1 if found else 0


def _blocks(name: str, seed: int, total: int, alone: bool) -> list[tuple[str, int, int]]:
    count = total if alone else round(total * TARGETS[name].share)
    return [(name, start, min(start + BLOCK, seed + count)) for start in range(seed, seed + count, BLOCK)]


def run_block(name: str, start: int, end: int) -> int:
    """In the process of a block: one line before each mutant, and the exception if there is one."""
    target = TARGETS[name]
    files = target.seeds()
    for number in range(start, end):
        print(number, flush=True)
        try:
            target.call(mutants.mutant(files, number, target.ends))
        except Exception:
            print(f"! {traceback.format_exc(limit=-3)!r}", flush=True)
    return 0


def watch(name: str, start: int, end: int) -> list[str]:
    """Run a block to its end, past whatever ends its process; returns findings."""
    found = []
    while start < end:
        command = [sys.executable, str(Path(__file__)), "--target", name, "--block", str(start), str(end)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS * (end - start), check=False)
            output, reason = done.stdout, f"ended with {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired as expired:
            output, reason = (expired.stdout or b"").decode(), "hung"
        last = start
        for line in output.splitlines():
            if line.startswith("!"):
                found.append(f"{name} {last}: {line}")
            else:
                last = int(line)
        if not reason:
            break
        found.append(f"{name} {last}: {reason}")
        start = last + 1
    return found


if __name__ == "__main__":
    sys.exit(main())
