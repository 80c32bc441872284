"""The fastest device: measured among those that answer rightly, and remembered."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clip_toolkit import DeviceError, fastest
from clip_toolkit.classifier import load
from clip_toolkit.commands.infer import main
from clip_toolkit.fastest import fastest_device
from clip_toolkit.replay import Drift

Said = list[str]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Said]:
    """Let devices be installed, all of them the CPU in truth, with the seconds of an image that the test says."""
    opened: Said = []

    def make(**seconds: float) -> Said:
        def opening(path: Path, device: str, threads: int | None) -> object:
            opened.append(device)
            if seconds[device] < 0:
                raise DeviceError(f"device {device}: no driver")
            return load(path, "cpu", threads)

        monkeypatch.setattr(fastest, "installed_devices", lambda: [*seconds])
        monkeypatch.setattr(fastest, "load", opening)
        monkeypatch.setattr(fastest, "_measured", lambda found: {device: seconds[device] for device in found})
        return opened

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return make


def test_the_fastest_is_chosen_and_remembered_for_this_file(
    installed: Callable[..., Said], demo: Path, edited: Callable[..., Path]
):
    opened, said = installed(cpu=2.0, cuda=1.0, directml=-1.0), []
    assert fastest_device(demo, report=said.append) == "cuda"
    assert said == ["left out: device directml: no driver", "fastest device: cuda (cpu 2000.00 ms, cuda 1000.00 ms)"]
    assert fastest_device(demo, report=said.append) == "cuda"
    assert opened == ["cpu", "cuda", "directml"]
    assert said[2:] == ["fastest device, as measured before: cuda"]
    assert fastest_device(edited(lambda data: data.update(training={"note": "another"}))) == "cuda"
    assert len(opened) == 6
    fastest_device(demo, threads=1)
    assert len(opened) == 9


def test_a_device_that_answers_otherwise_is_left_out(
    installed: Callable[..., Said], demo: Path, monkeypatch: pytest.MonkeyPatch
):
    installed(cuda=1.0)
    monkeypatch.setattr(fastest, "selftest", lambda _: [Drift("pillow", "logits", 1.0, 1e-3)])
    said: Said = []
    with pytest.raises(DeviceError, match="none of cuda passes"):
        fastest_device(demo, report=said.append)
    assert said == ["left out: device cuda: fails the selftest (logits)"]


def test_what_is_remembered_may_be_damaged(installed: Callable[..., Said], demo: Path, tmp_path: Path):
    installed(cpu=1.0)
    for content in ("[]", "{", '{"a": 1}'):
        (tmp_path / "clip-toolkit").mkdir(exist_ok=True)
        (tmp_path / "clip-toolkit" / "fastest.json").write_text(content)
        assert fastest_device(demo) == "cpu"


def test_command_line(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["--selftest", str(demo), "--device", "fastest"]) == 0
    assert "fastest device: cpu (cpu " in capsys.readouterr().err
