"""What the processor can do."""

from __future__ import annotations

import functools
import platform
from pathlib import Path


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets by the names Linux gives them, such as ``avx512_vnni``; empty where it does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return frozenset(value.split())
    return frozenset()


VNNI = ("avx512_vnni", "avx_vnni")
"""Flags of x86 processors that add products of 8-bit integers in 32 bits."""


def saturates(target: str) -> bool:
    """Whether int8 products of a file for ``target`` may overflow here: x86 without `VNNI` adds two of them in 16 bits.

    Args:
        target: as in `clip_toolkit.spec.receipts.QuantizationReceipt`. Files for ``x86`` have small enough weights.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i686") or target in ("x86", "any"):
        return False
    flags = cpu_flags()
    return bool(flags) and flags.isdisjoint(VNNI)
