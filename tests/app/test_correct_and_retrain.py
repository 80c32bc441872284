"""In a real browser: correct three labels, retrain, accept; the service reloads the file and gives the new answer."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from draw import labelled_pictures

for package in ("gradio", "torch", "transformers", "starlette", "prometheus_client"):
    pytest.importorskip(package, reason="needs the extras app, export and serve")
if not hasattr(signal, "SIGHUP"):
    pytest.skip("there is no SIGHUP on this system", allow_module_level=True)

from commands_in_process import run, train  # noqa: E402  # needs torch

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("drive_app.mjs")
PLAYWRIGHT = ROOT / "examples" / "browser" / "node_modules" / "playwright-core" / "index.mjs"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def browser() -> list[str]:
    """The command that drives it, without the address."""
    node = shutil.which("node") or pytest.skip("Node.js is not installed")
    chromium = shutil.which("chromium") or pytest.skip("Chromium is not installed. Run: apt-get install chromium")
    if not PLAYWRIGHT.is_file():
        pytest.skip("the packages of examples/browser are not installed. Run: make examples")
    return [node, str(DRIVER), str(PLAYWRIGHT), chromium]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with its head and training data, circles and squares, and three stars that it has not seen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for seed, name in enumerate(("circle", "square", "star")):
        place = tmp_path / ("stars" if name == "star" else f"photos/{name}")
        place.mkdir(parents=True)
        pictures = labelled_pictures("shape", name, seed, 64)
        for number in range(3 if name == "star" else 10):
            next(pictures).save(place / f"{number}.png")
    train("photos", "--linear", "--lr", "0.03", cwd=tmp_path)
    assert run("clip-export", "--head", "head.pt", cwd=tmp_path).returncode == 0
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts a command in the folder."""
    running: list[subprocess.Popen[str]] = []

    def begin(module: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", module, *arguments, "--port", "0"]
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder))
        return running[-1]

    yield begin
    for process in running:
        with process:
            process.terminate()


def address(process: subprocess.Popen[str]) -> str:
    """The address of a command, once it listens."""
    return next(line.split()[-1] for line in iter(process.stderr.readline, "") if "listening on" in line)


def served_label(url: str, image: Path) -> str:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request("POST", "/v1/predict", image.read_bytes(), {"Content-Type": "image/png"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer["predictions"][0]["label"]


def test_correct_retrain_and_reload(browser: list[str], folder: Path, start: Start):
    stars = [folder / "stars" / f"{number}.png" for number in range(3)]
    app = start("clip_app.commands.app", "model.onnx", "--head", "head.pt")
    service = start("clip_serve.commands.serve", "model.onnx", "--quiet")
    served, url = address(service), address(app)
    before = [served_label(served, star) for star in stars]
    right = "square" if before.count("circle") > 1 else "circle"  # wrong for most of them until they are learnt
    steps: list[dict[str, object]] = [{"wait": "Add images"}]
    for number, star in enumerate(stars, 1):
        steps += [
            {"upload": ["input[type=file]", [str(star)]]},
            {"wait": f"{star.name}\n[\\s\\S]*Right label"},
            {"text": ".headline"},
            {"click": f"label:has-text('{right}') input"},
            {"click": "text=Save the correction"},
            {"wait": f"Saved: {number} corrected"},
            {"click": "button[aria-label='Clear']"},
            {"wait": "Drop File Here"},
        ]
    steps += [
        {"click": "button[role=tab]:has-text('Many images')"},
        {"upload": ["[role=tabpanel]:visible input[type=file]", [str(star) for star in stars]]},
        {"wait": "3 images[\\s\\S]*2\\.png"},
        {"click": "button[role=tab]:has-text('Retrain')"},
        {"click": "text=Use the retrained model"},
        {"wait": "there is no retrained model yet"},
        {"click": "text=Retrain on the corrections"},
        {"wait": "before[\\s\\S]*after"},
        {"text": "table:has-text('before')"},
        {"click": "text=Use the retrained model"},
        {"wait": "is shown from now on"},
    ]
    old = (folder / "model.onnx").read_bytes()
    ran = subprocess.run(
        [*browser, url, str(folder / "profile"), "390"],
        input=json.dumps(steps),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    *headlines, table = json.loads(ran.stdout)["texts"]
    assert json.loads(ran.stdout)["troubles"] == []
    assert [text.split()[0] for text in headlines] == before
    assert "right: 4 held-out images\t" in table
    assert f"right: 3 corrected images, which it has learnt\t{before.count(right) / 3:.1%}\t100.0%" in table
    assert (folder / "model.previous.onnx").read_bytes() == old
    assert [served_label(served, star) for star in stars] == before
    service.send_signal(signal.SIGHUP)
    assert any("reloaded" in line for line in iter(service.stderr.readline, ""))
    assert [served_label(served, star) for star in stars] == [right] * 3
