"""Cores, their instructions, and memory, against what a run would use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from clip_toolkit.doctor.finding import Finding
from clip_toolkit.runtime.processor import affinity_cores, cpu_flags, cpu_quota, memory_limit, usable_cores

MEMORY_INFO = Path("/proc/meminfo")

# Instructions that decide how fast ONNX Runtime multiplies, by their names in /proc/cpuinfo.
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm")

# A model file of 334 MiB peaked at 519 MiB in a whole process (docs/benchmarks.md), the 4 MiB of the demo at 70 MiB.
_MEMORY_FACTOR = 1.4
_MEMORY_OF_PROCESS = 64 * 2**20


def machine(model_bytes: int, threads: int | None) -> Iterator[Finding]:
    """Examine the hardware and its limits."""
    yield _instructions()
    yield _threads(threads)
    yield _memory(model_bytes)


def _instructions() -> Finding:
    flags = cpu_flags()
    if not flags:
        return Finding("CPU instructions", "note", "this system does not list them")
    found = [name for name in _INSTRUCTIONS if name in flags]
    return Finding("CPU instructions", "fine" if found else "note", ", ".join(found) or "none that speed up products")


def _threads(threads: int | None) -> Finding:
    quota = cpu_quota()
    limits = f"{os.cpu_count()} in the machine, {affinity_cores()} by affinity, quota {quota or 'none'}"
    usable, chosen = usable_cores(), threads or usable_cores()
    if chosen > usable:
        detail = f"{chosen} threads for {usable} usable cores ({limits}): they wait for each other"
        return Finding("cores", "wrong", detail, f"--threads {usable}")
    return Finding("cores", "fine", f"{limits}: {chosen} threads")


def _memory(model_bytes: int) -> Finding:
    limits = [limit for limit in (_available(), memory_limit()) if limit is not None]
    if not limits:
        return Finding("memory", "note", "this system does not say how much there is")
    least, need = min(limits), int(model_bytes * _MEMORY_FACTOR) + _MEMORY_OF_PROCESS
    detail = f"{least / 2**20:.0f} MiB to be had, about {need / 2**20:.0f} MiB needed for this model"
    if need > least:
        return Finding("memory", "wrong", detail, "raise the container's memory limit, or use a quantized model file")
    return Finding("memory", "fine", detail)


def _available() -> int | None:
    try:
        rows = dict(row.split(":", 1) for row in MEMORY_INFO.read_text(encoding="ascii").splitlines() if ":" in row)
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
