"""``clip-infer --doctor``."""

import json
import subprocess
from collections.abc import Callable
from importlib.metadata import Distribution
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from clip_toolkit import load
from clip_toolkit.commands.infer import main
from clip_toolkit.doctor import examine, installation, machine, providers

Captured = pytest.CaptureFixture[str]


def finding(subject: str, path: Path, threads: int | None = None) -> object:
    return next(item for item in examine(path, threads) if item.subject == subject)


def test_a_sound_machine(demo: Path, capsys: Captured):
    assert main(["--doctor", str(demo), "--format", "json"]) == 0
    rows = {row["subject"]: row for row in json.loads(capsys.readouterr().out)}
    assert all(row["status"] in {"fine", "note"} for row in rows.values())
    assert rows["ONNX Runtime"]["detail"].startswith(onnxruntime.__version__)
    assert "CPUExecutionProvider: drift" in rows["device cpu"]["detail"]
    assert main(["--doctor"]) == 0
    assert "golden vectors" in capsys.readouterr().out


def test_a_model_that_decides_otherwise_is_wrong(edited: Callable[..., Path], capsys: Captured):
    broken = edited(lambda data: data["golden"][0]["logits"].reverse())
    assert main(["--doctor", str(broken)]) == 1
    out = capsys.readouterr().out
    assert "wrong" in out
    assert "fix: clip-export" in out


def test_a_file_that_needs_a_newer_onnxruntime_says_so(edited: Callable[..., Path]):
    newer = edited(lambda data: data.update(onnxruntime="999.0"))
    found = finding("model", newer)
    assert found.status == "wrong"
    assert "needs ONNX Runtime 999.0 or newer" in found.detail
    assert "pip install -U onnxruntime" in found.fix
    assert any("needs ONNX Runtime 999.0" in note for note in load(newer, device="cpu").notes)


def test_no_model_or_no_golden_vectors(tmp_path: Path, edited: Callable[..., Path]):
    assert finding("model", tmp_path / "none.onnx").status == "wrong"
    assert finding("model", edited(lambda data: data.update(golden=[]))).status == "wrong"


def test_two_packages_of_onnxruntime_are_wrong(demo: Path, monkeypatch: pytest.MonkeyPatch):
    def fake(name: str) -> Distribution:
        return SimpleNamespace(metadata={"Name": name})

    monkeypatch.setattr(installation, "distributions", lambda: [fake("onnxruntime"), fake("onnxruntime-gpu")])
    found = finding("ONNX Runtime packages", demo)
    assert found.status == "wrong"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu" in found.fix


def test_a_missing_onnxruntime_is_wrong(demo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    found = finding("ONNX Runtime", demo)
    assert (found.status, found.fix) == ("wrong", "pip install 'clip-toolkit[cpu]'")


def test_more_threads_than_cores_and_too_little_memory(demo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    assert finding("cores", demo, 8).fix == "--threads 1"
    monkeypatch.setattr(machine, "memory_limit", lambda: 32 * 2**20)
    assert finding("memory", demo).status == "wrong"


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (SimpleNamespace(returncode=-11, stdout="", stderr=""), "signal 11"),
        (SimpleNamespace(returncode=1, stdout="", stderr="clip-infer: no driver\n"), "no driver"),
        (subprocess.TimeoutExpired("x", 1), "hangs"),
    ],
)
def test_a_provider_that_crashes_fails_or_hangs(
    demo: Path, monkeypatch: pytest.MonkeyPatch, result: object, expected: str
):
    def run(*_: object, **__: object) -> object:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(providers.subprocess, "run", run)
    found = finding("device cpu", demo)
    assert found.status == "wrong"
    assert expected in found.detail
