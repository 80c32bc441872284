"""The page of the browser example, in headless Chromium, shows Python's answers with the very same model file."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image, PngImagePlugin

FOLDER = Path(__file__).parents[2] / "examples" / "browser"
DRIVER = Path(__file__).with_name("drive_page.mjs")
PLAYWRIGHT = FOLDER / "node_modules" / "playwright-core" / "index.mjs"

TOLERANCE = 1e-4
"""Of probabilities, on the same pixels."""

DECODER_TOLERANCE = 1e-2
"""Of probabilities, where two decoders may round a pixel differently: JPEG files and transparent pixels."""

SHOWN_TOLERANCE = 0.0005 + 1e-9
"""Of the shown percentages, which have one decimal, as a probability."""

State = dict[str, Any]
Drive = Callable[..., list[State]]
Expected = Callable[[Path], dict[str, float]]


@pytest.fixture(scope="module")
def serve(node: str) -> Iterator[Callable[[Path], str]]:
    """Starts the example's own server for a model file and returns the page's address."""
    if not PLAYWRIGHT.is_file():
        pytest.skip("the packages of examples/browser are not installed. Run: make examples")
    running = []

    def start(model: Path) -> str:
        command = [node, str(FOLDER / "serve.mjs"), str(model), "--port", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(server)
        return server.stdout.readline().strip()

    yield start
    for server in running:
        with server:
            server.terminate()


@pytest.fixture(scope="module")
def url(serve: Callable[[Path], str], model: Path) -> str:
    return serve(model)


@pytest.fixture
def drive(node: str, tmp_path: Path) -> Drive:
    """Opens the page, takes steps, and returns what it shows at first and after each of them."""
    chromium = shutil.which("chromium") or pytest.skip("Chromium is not installed. Run: apt-get install chromium")

    def run(url: str, *steps: dict[str, str], troubles: int = 0) -> list[State]:
        command = [node, str(DRIVER), str(PLAYWRIGHT), chromium, url, str(tmp_path / "profile")]
        ran = subprocess.run(command, input=json.dumps(steps), capture_output=True, text=True, check=False, timeout=180)
        assert ran.returncode == 0, ran.stderr
        result = json.loads(ran.stdout)
        assert len(result["troubles"]) == troubles, result["troubles"]
        return result["states"]

    return run


def check_answer(state: State, expected: dict[str, float], tolerance: float) -> None:
    shown = {score["label"]: score["probability"] for score in state["scores"]}
    percentages = {score["label"]: float(score["percent"].rstrip("%")) / 100 for score in state["scores"]}
    assert state["error"] is None
    assert state["headline"] == next(iter(expected))
    assert list(shown) == list(expected)
    assert shown == pytest.approx(expected, abs=tolerance)
    assert percentages == pytest.approx(shown, abs=SHOWN_TOLERANCE)


def test_answers_are_pythons(drive: Drive, url: str, pictures: dict[str, Path], expected: Expected):
    ready, *states = drive(url, *({"picture": str(path)} for path in pictures.values()))
    assert ready["isolated"]
    for path, state in zip(pictures.values(), states, strict=True):
        check_answer(state, expected(path), TOLERANCE)
        assert re.fullmatch(r"[\d.]+% · \d+ ms", state["detail"])


def test_colours_are_not_converted(
    drive: Drive, url: str, pictures: dict[str, Path], expected: Expected, tmp_path: Path
):
    linear = PngImagePlugin.PngInfo()
    linear.add(b"gAMA", (100_000).to_bytes(4, "big"))
    path = tmp_path / "linear.png"
    Image.open(pictures["portrait"]).save(path, pnginfo=linear)
    _, state = drive(url, {"picture": str(path)})
    check_answer(state, expected(path), TOLERANCE)


def test_photos_and_transparency(
    drive: Drive, url: str, photo: Callable[[int], Path], transparent: Path, expected: Expected
):
    paths = [photo(1), photo(6), transparent]
    _, *states = drive(url, *({"drop": str(path)} for path in paths))
    for path, state in zip(paths, states, strict=True):
        check_answer(state, expected(path), DECODER_TOLERANCE)


def test_bad_files_are_named_and_leave_the_page_working(
    drive: Drive, url: str, pictures: dict[str, Path], broken: dict[str, Path], expected: Expected
):
    reasons = {
        "text.png": "this browser cannot read it as a picture",
        "empty.png": "this browser cannot read it as a picture",
        "text.onnx": "expected an ONNX file",
        "cut.onnx": "expected an ONNX file",
        "foreign.onnx": "only files of clip-export",
        "newer.onnx": "format version 9.",
        "task.onnx": "does not say the most probable label",
        "fused.onnx": "reads a text with each picture",
    }
    steps = [{"model" if name.endswith("onnx") else "picture": str(broken[name])} for name in reasons]
    _, *states, last = drive(url, *steps, {"picture": str(pictures["odd"])})
    for (name, reason), state in zip(reasons.items(), states, strict=True):
        assert state["error"].startswith(f"{name}: ")
        assert reason in state["error"]
        assert {score["percent"] for score in state["scores"]} == {"\N{EN DASH}"}
    check_answer(last, expected(pictures["odd"]), TOLERANCE)


def test_model_file_chosen_by_hand(
    drive: Drive,
    serve: Callable[[Path], str],
    model: Path,
    pictures: dict[str, Path],
    expected: Expected,
    tmp_path: Path,
):
    url = serve(tmp_path / "missing.onnx")
    steps = [{"picture": str(pictures["odd"])}, {"drop": str(model)}, {"click": "#compare"}]
    empty, waiting, answered, compared = drive(url, *steps, troubles=1)  # the browser's own note on the missing file
    assert "There is no model.onnx beside this page" in empty["detail"]
    assert waiting["headline"] == "No model yet"
    assert answered["model"] == model.name
    check_answer(answered, expected(pictures["odd"]), TOLERANCE)
    drift = re.search(r"within (\S+) of PyTorch", compared["drift"])
    assert float(drift[1]) < DECODER_TOLERANCE


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/browser/app.mjs", 200),
        ("/", 302),
        ("/browser/nothing", 404),
        ("/../pyproject.toml", 404),
        ("/browser/..%2f..%2fpyproject.toml", 404),
        ("/%zz", 400),
    ],
)
def test_server_gives_away_the_examples_only(path: str, status: int, url: str):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("GET", path)
    assert connection.getresponse().status == status
    connection.close()
