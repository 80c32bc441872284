"""``make fuzz``: seeded mutants of small images and of model files; none may crash, hang or surprise.

Mutants run in blocks, each in a process of its own, which writes the number of a mutant before it touches it: a crash
of native code is found, named and gone past. Repeat one with ``--target NAME --only NUMBER``.
"""

from __future__ import annotations

import argparse
import faulthandler
import resource
import signal
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from targets import EXPORT_SHARES, TARGETS, Target

BLOCK = 500
SECONDS = 20  # of processor time for one mutant: the machine may be busy with others
STANDSTILL = 10 * SECONDS  # for one that waits without computing
MEMORY = 2 * 2**20  # KiB, of the process


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="tests/fuzz/run.py", description="Feed the runtime seeded mutants.")
    parser.add_argument("--mutants", type=int, default=50_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="number of the first (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="at once (default: %(default)s)")
    parser.add_argument("--target", choices=[*TARGETS, *EXPORT_SHARES], help="one target alone")
    parser.add_argument("--only", type=int, help="one mutant of the target")
    parser.add_argument("--block", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run and return the exit code: 1 when anything was found."""
    args = parse_args()
    if args.only is not None:
        target = find_target(args.target)
        target.call(target.mutate(target.seeds(), args.only))
        return 0
    if args.block:
        return run_block(args.target, *args.block)
    names = [args.target] if args.target else [*TARGETS, *EXPORT_SHARES]
    blocks = [block for name in names for block in _blocks(name, args.seed, args.mutants, bool(args.target))]
    done = found = 0
    with ThreadPoolExecutor(args.processes) as pool:
        for (_, start, end), lines in zip(blocks, pool.map(lambda block: watch(*block), blocks), strict=True):
            done, found = done + end - start, found + len(lines)
            print(*lines, f"{done} mutants, {found} findings", sep="\n", flush=True)
    return 1 if found else 0


def find_target(name: str) -> Target:
    """The target of a name."""
    if name in TARGETS:
        return TARGETS[name]
    from export_targets import EXPORT_TARGETS

    return EXPORT_TARGETS[name]


def _blocks(name: str, seed: int, total: int, alone: bool) -> list[tuple[str, int, int]]:
    shares = {known: target.share for known, target in TARGETS.items()} | EXPORT_SHARES
    count = total if alone else round(total * shares[name])
    return [(name, start, min(start + BLOCK, seed + count)) for start in range(seed, seed + count, BLOCK)]


def run_block(name: str, start: int, end: int) -> int:
    """In the process of a block: one line before each mutant, and the exception if there is one."""
    target = find_target(name)
    files = target.seeds()
    faulthandler.register(signal.SIGPROF, chain=True)  # the traceback, then the end that the signal brings
    for number in range(start, end):
        print(number, flush=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        faulthandler.dump_traceback_later(STANDSTILL, exit=True)
        try:
            target.call(target.mutate(files, number))
        except Exception:
            print(f"! {traceback.format_exc(limit=-3)!r}", flush=True)
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MEMORY:
            print("! more than 2 GiB", flush=True)
            return 3
    faulthandler.cancel_dump_traceback_later()
    return 0


def watch(name: str, start: int, end: int) -> list[str]:
    """Run a block to its end, past whatever ends its process; returns findings."""
    found = []
    while start < end:
        command = [sys.executable, str(Path(__file__)), "--target", name, "--block", str(start), str(end)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=STANDSTILL * BLOCK, check=False)
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
