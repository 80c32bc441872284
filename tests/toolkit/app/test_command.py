"""What keeps clip-app from starting is said in one line, with exit code 1."""

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_fused_model

from clip_app.commands.app import main


def failed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if "built-in demo" not in line]
    return line.removeprefix("clip-app: ")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "clip_app.app", raising=False)
    line = failed([], capsys)
    assert line == "the app needs the package gradio. Install: pip install 'clip-toolkit[cpu,app]'"


def test_a_usage_error(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(["--data", "photos"])
    assert stopped.value.code == 2
    assert "--data needs --head" in capsys.readouterr().err


class TestWithGradio:
    """Needs the extra."""

    @pytest.fixture(autouse=True)
    def _gradio(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Close the event loops that it makes and forgets: whoever collects them, tests later, is warned."""
        pytest.importorskip("gradio", reason="needs the app extra")
        loops, make = [], asyncio.new_event_loop
        monkeypatch.setattr(asyncio, "new_event_loop", lambda: loops.append(make()) or loops[-1])
        yield
        asyncio.set_event_loop(None)
        for loop in loops:
            loop.close()

    def test_a_port_in_use(self, capsys: pytest.CaptureFixture[str]):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            assert "name another with --port" in failed(["--port", port], capsys)

    def test_no_model_and_no_readable_one(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        (tmp_path / "bad.onnx").write_text("no model", encoding="utf-8")
        assert "missing.onnx" in failed(["missing.onnx", "--port", "0"], capsys)
        assert "expected an ONNX file" in failed(["bad.onnx", "--port", "0"], capsys)

    def test_a_model_that_reads_texts(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        (tmp_path / "fused.onnx").write_bytes(tiny_fused_model.model())
        assert "reads a text with each image" in failed(["fused.onnx", "--port", "0"], capsys)

    def test_retraining_needs_torch_a_head_and_a_model(
        self, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        assert "name the MODEL" in failed(["--head", "head.pt", "--port", "0"], capsys)
        (tmp_path / "model.onnx").write_bytes(demo.read_bytes())
        arguments = ["model.onnx", "--head", "head.pt", "--port", "0"]
        monkeypatch.setattr("clip_app.retraining.find_spec", lambda _name: None)
        assert failed(arguments, capsys).endswith("pip install 'clip-toolkit[app,export,cpu]'")
        monkeypatch.setattr("clip_app.retraining.find_spec", lambda _name: object())
        assert failed(arguments, capsys) == "head.pt: there is no such head file. Make one with clip-train."

    def test_an_index_that_is_none(self, capsys: pytest.CaptureFixture[str]):
        assert "nowhere" in failed(["--index", "nowhere", "--port", "0"], capsys)
