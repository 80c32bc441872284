"""``clip-serve``, the command: its errors, and one real process with its signals."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_task_model

from clip_serve import ServeOptions
from clip_serve.commands.serve import main
from clip_toolkit import ModelError
from clip_toolkit.spec.tasks import MULTI_LABEL, SINGLE_LABEL


@pytest.mark.parametrize(
    "arguments", [["--port", "x"], ["--host", "192.0.2.1"], ["--max-queue", "0"], ["--timeout", "0"], ["--heard-of"]]
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("clip-serve: ")


def test_a_missing_and_a_foreign_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "foreign.onnx").write_bytes(b"no model")
    for name, reason in (("gone.onnx", "there is no such model file"), ("foreign.onnx", "")):
        assert main([str(tmp_path / name), "--port", "0"]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert name in line
        assert reason in line


def test_memory_is_limited_before_a_model_is_opened(demo: Path, monkeypatch: pytest.MonkeyPatch):
    def limit(mebibytes: int) -> None:
        raise RuntimeError(mebibytes)

    monkeypatch.setattr("clip_serve.service.limit_memory", limit)
    with pytest.raises(RuntimeError, match="18"):
        main([str(demo), "--port", "0", "--max-memory", "18"])


def test_a_port_in_use(demo: Path, capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main([str(demo), "--port", port]) == 1
    assert f"cannot listen on 127.0.0.1, port {port} (" in capsys.readouterr().err


def test_nobody_can_connect_before_the_models_are_open(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []

    def opening(options: ServeOptions) -> None:
        with socket.socket() as probe:
            seen.append(probe.connect_ex(("127.0.0.1", options.address.port)))
        raise ModelError("no model")

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    monkeypatch.setattr("clip_serve.app.create_app", opening)
    assert main(["--port", port]) == 1
    assert seen[0] != 0


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name in [name for name in sys.modules if name.startswith("clip_serve.") and name != "clip_serve.options"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    assert main([]) == 1
    assert "pip install 'clip-toolkit[serve]'" in capsys.readouterr().err


def hears_sighup() -> bool:
    """Whether there is such a signal, and processes that are started here do not ignore it, as under nohup."""
    return sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN


@pytest.mark.skipif(not hears_sighup(), reason="there is no SIGHUP, or processes started here ignore it")
def test_a_process_reloads_on_sighup_and_ends_on_sigterm(tmp_path: Path):
    model = tmp_path / "model.onnx"
    model.write_bytes(tiny_task_model.model(SINGLE_LABEL))
    command = [sys.executable, "-m", "clip_serve.commands.serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        port = next(int(found[1]) for line in lines if (found := re.search(r"http://127.0.0.1:(\d+)", line)))
        process.send_signal(signal.SIGHUP)  # at once: whoever says that it listens handles signals
        assert "reloaded: model" in next(lines)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/v2/models/model", headers={"X-Request-ID": "first"})
        assert connection.getresponse().read()
        assert '"id": "first"' in next(lines)
        model.write_bytes(tiny_task_model.model(MULTI_LABEL))
        process.send_signal(signal.SIGHUP)
        assert "reloaded: model" in next(lines)
        process.send_signal(signal.SIGTERM)
        connection.request("GET", "/v2/models/model")  # while it lasts
        assert b"constructor" in connection.getresponse().read()
        connection.close()
        assert process.wait(20) == 0
        assert [line for line in lines if "GET" not in line] == []
