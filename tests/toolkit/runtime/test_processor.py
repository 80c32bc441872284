"""Cores and memory by affinity and control group, on file trees as Linux makes them."""

from pathlib import Path

import pytest

from clip_toolkit.runtime import processor as cores


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Let the process have six cores and be in the groups described: ``tree({file: text}, groups)``."""
    monkeypatch.setattr(cores, "CGROUP_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "CGROUP_OF_PROCESS", tmp_path / "self")
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)

    def make(files: dict[str, str], groups: str = "0::/\n") -> None:
        (tmp_path / "self").write_text(groups)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return make


def test_without_control_groups(tree):
    assert (cores.usable_cores(), cores.cpu_quota(), cores.memory_limit()) == (6, None, None)
    tree({})
    assert cores.usable_cores() == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000\n", 6), ("250000 100000\n", 2), ("50000 100000\n", 1), ("900000 100000\n", 6), ("junk\n", 6)],
)
def test_version_2(tree, text: str, expected: int):
    tree({"cpu.max": text})
    assert cores.usable_cores() == expected


def test_the_tightest_group_on_the_way_up_counts(tree):
    files = {
        "a/cpu.max": "100000 100000",
        "a/b/cpu.max": "300000 100000",
        "a/memory.max": "1000",
        "a/b/memory.max": "max",
    }
    tree(files, "0::/a/b\n")
    assert (cores.usable_cores(), cores.memory_limit()) == (1, 1000)


def test_version_1(tree):
    files = {
        "cpu/box/cpu.cfs_quota_us": "50000\n",
        "cpu/box/cpu.cfs_period_us": "100000\n",
        "cpu/cpu.cfs_quota_us": "-1\n",
        "cpu/cpu.cfs_period_us": "100000\n",
        "memory/box/memory.limit_in_bytes": "536870912\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    tree(files, "4:memory:/box\n1:cpu,cpuacct:/box\n0::/\n")
    assert cores.cpu_quota() == 0.5
    assert cores.usable_cores() == 1
    assert cores.memory_limit() == 512 * 2**20
