"""What the processor can do, and what this process may use of it: cores by affinity and control group, and memory.

Containers are limited by control groups, of which Linux has two versions. A group's limits hold for all groups below
it, so that the tightest on the way from this process's group to the root counts. Files and units: cgroups(7),
https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/scheduler/sched-bwc.html.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterator
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_OF_PROCESS = Path("/proc/self/cgroup")

_NO_LIMIT = 2**60  # version 1 writes a number near 2**63 where there is no limit

VNNI = ("avx512_vnni", "avx_vnni")
"""Flags of x86 processors that add products of 8-bit integers in 32 bits."""


def usable_cores() -> int:
    """CPU cores to use: those of the affinity, cut by the quota, rounded down; at least 1."""
    quota = cpu_quota()
    cores = affinity_cores()
    return cores if quota is None else max(1, min(cores, int(quota)))


def affinity_cores() -> int:
    """Cores that the scheduler may put this process on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota() -> float | None:
    """Cores' worth of time that the control group allows, or ``None`` where it sets no limit."""
    limits = [_version_2_quota(text) for text in _texts("", "cpu.max")]
    quotas, periods = (_texts("cpu", f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    limits += [_share(quota, period) for quota, period in zip(quotas, periods, strict=False)]
    return min((limit for limit in limits if limit is not None), default=None)


def memory_limit() -> int | None:
    """Bytes that the control group allows, or ``None`` where it sets no limit."""
    texts = [*_texts("", "memory.max"), *_texts("memory", "memory.limit_in_bytes")]
    return min((int(text) for text in texts if text.isdigit() and int(text) < _NO_LIMIT), default=None)


def _version_2_quota(text: str) -> float | None:
    quota, _, period = text.partition(" ")
    return _share(quota, period)


def _share(quota: str, period: str) -> float | None:
    # No limit is "max" in version 2 and -1 in version 1.
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _texts(controller: str, name: str) -> Iterator[str]:
    """Contents of a file in the process's group and in all above it; controller "" is version 2."""
    for group in _groups(controller):
        try:
            yield (group / name).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue


def _groups(controller: str) -> Iterator[Path]:
    mount = CGROUP_ROOT / controller
    group = Path(_group_of_process(controller).strip("/"))
    for inner in (group, *group.parents):
        yield mount / inner


def _group_of_process(controller: str) -> str:
    try:
        rows = CGROUP_OF_PROCESS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    parted = [row.split(":", 2) for row in rows]
    return next((path for _, names, path in parted if controller in names.split(",")), "")


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


def processor_facts() -> list[str]:
    """Return what decides which kernels run, as far as the system tells."""
    return [platform.machine(), platform.processor(), *sorted(cpu_flags())]


def is_x86() -> bool:
    """Whether this machine's processor is one of Intel's or AMD's line."""
    return platform.machine().lower() in ("x86_64", "amd64", "i686")


def has_vnni() -> bool:
    """Whether it is known to have one of `VNNI`."""
    return is_x86() and not cpu_flags().isdisjoint(VNNI)


def saturates(target: str) -> bool:
    """Whether int8 products of a file for ``target`` may overflow here: x86 without `VNNI` adds two of them in 16 bits.

    Args:
        target: as in `clip_toolkit.spec.receipts.QuantizationReceipt`. Files for ``x86`` have small enough weights.
    """
    return is_x86() and target not in ("x86", "any") and bool(cpu_flags()) and not has_vnni()
