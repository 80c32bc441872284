"""SIGTERM ends a command as Ctrl-C does, with its own exit code."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.signals import sigterm_raises
from clip_toolkit.terminal import run_command


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cleans_up_and_gives_its_exit_code(signum: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "out").write_text("old")

    def run() -> int:
        with written_atomically(tmp_path / "out") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signum)
        return 0

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started with
    try:
        assert run_command("program", run) == 128 + signum
    finally:
        signal.signal(signal.SIGINT, before)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_text() == "old"
    assert capsys.readouterr().err == "program: interrupted\n"


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with sigterm_raises():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_imports_is_one_line(signum: int, tmp_path: Path):
    (tmp_path / "numpy.py").write_text(f"import os\nos.kill(os.getpid(), {signum:d})\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    handled = "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    for place, program, arguments in (
        ("clip_toolkit.commands.infer", "clip-infer", ["image.png"]),
        ("clip_search.commands.search", "clip-search", ["query", "--image", "image.png"]),
    ):
        command = [sys.executable, "-c", f"{handled}from {place} import main\nsys.exit(main())", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (128 + signum, f"{program}: interrupted\n")


def test_the_handler_is_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with sigterm_raises():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_other_threads_run_without_a_handler():
    found = []
    thread = threading.Thread(target=lambda: found.append(run_command("program", lambda: 7)))
    thread.start()
    thread.join()
    assert found == [7]
