"""The page of the browser example, in headless Chromium, shows Python's answers with the very same model file."""

from __future__ import annotations

import http.client
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import tiny_fused_model
import tiny_task_model
from clients import BROWSER as FOLDER
from clients import Drive, State
from PIL import Image, PngImagePlugin

from clip_toolkit import load
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS

TOLERANCE = 1e-4
"""Of probabilities, on the same pixels."""

DECODER_TOLERANCE = 1e-2
"""Of probabilities, where two decoders may round a pixel differently: JPEG files and transparent pixels."""

SHOWN_TOLERANCE = 0.0005 + 1e-9
"""Of the shown percentages, which have one decimal, as a probability."""

Expected = Callable[[Path], dict[str, float]]


@pytest.fixture(scope="module")
def url(serve: Callable[[Path], str], model: Path) -> str:
    return serve(model)


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
        assert re.fullmatch(r"[\d.]+% · [\d.,]+ ms decoding, [\d.,]+ ms model", state["detail"])


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
        "task.onnx": "knows single-label, multi-label, regression",
        "threshold.onnx": "threshold",
        "text-tower.onnx": "holds a text tower",
        "pixels.onnx": "takes pixel, not pictures",
        "several.onnx": "holds the heads lungs, signs, numbers",
    }
    steps = [{"model" if name.endswith("onnx") else "picture": str(broken[name])} for name in reasons]
    _, *states, last = drive(url, *steps, {"picture": str(pictures["odd"])})
    for (name, reason), state in zip(reasons.items(), states, strict=True):
        assert state["error"].startswith(f"{name}: ")
        assert reason in state["error"]
        assert {score["percent"] for score in state["scores"]} == {"\N{EN DASH}"}
    check_answer(last, expected(pictures["odd"]), TOLERANCE)


HEADINGS = {
    SINGLE_LABEL: "normal or pneumonia?",
    MULTI_LABEL: "Any of red, 2, constructor, or bl\N{LATIN SMALL LETTER U WITH DIAERESIS}e?",
    REGRESSION: "Estimate: age and weight",
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_answered_as_in_python(
    task: str, drive: Drive, url: str, of_task: dict[str, Path], colours: list[Path]
):
    classifier = load(of_task[task], device="cpu", resize="graph")
    steps = [{"model": str(of_task[task])}, *({"picture": str(path)} for path in colours), {"click": "#compare"}]
    _, opened, *states, compared = drive(url, *steps)
    assert opened["heading"] == HEADINGS[task]
    for state, prediction in zip(states, classifier.predict_many(colours), strict=True):
        assert state["error"] is None
        shown = {score["label"]: score["probability"] for score in state["scores"]}
        assert shown == pytest.approx(prediction.values or dict(prediction.top(9)), rel=TOLERANCE, abs=TOLERANCE)
        predicted = [score["label"] for score in state["scores"] if score["predicted"]]
        assert set(predicted) == set(prediction.decisions)
        assert predicted == [score["label"] for score in state["scores"]][: len(predicted)]
        if task == SINGLE_LABEL:
            assert state["headline"] == prediction.label
            by_threshold = prediction.label != prediction.top(1)[0].label
            assert ("decided by threshold" in state["detail"]) == by_threshold
        if task == MULTI_LABEL:
            assert state["headline"] == (", ".join(prediction.decisions) or "None of the labels")
    assert float(re.search(r"within (\S+) of PyTorch", compared["drift"])[1]) < TOLERANCE


def test_a_file_that_says_more_is_answered_as_in_python(drive: Drive, url: str, colours: list[Path], tmp_path: Path):
    path, bright = tmp_path / "more.onnx", tmp_path / "bright.png"
    path.write_bytes(tiny_task_model.model(SINGLE_LABEL, novelty=True, coverage=True, relevance=True))
    Image.new("RGB", (8, 8), (10, 250, 30)).save(bright)
    pictures, classifier = [*colours, bright], load(path, device="cpu", resize="graph")
    steps = [{"model": str(path)}, *({"picture": str(picture)} for picture in pictures), {"click": "#compare"}]
    _, _, *states, compared = drive(url, *steps)
    for state, prediction in zip(states, classifier.predict_many(pictures), strict=True):
        assert state["error"] is None
        shown = {score["label"]: score["probability"] for score in state["scores"]}
        assert shown == pytest.approx(dict(prediction.top(2)), abs=TOLERANCE)
        assert ("unlike the training images" in state["detail"]) is prediction.is_novel
        promised = f" one of these should be right: {', '.join(prediction.set)} " in state["detail"]
        assert promised is not prediction.is_novel
    assert prediction.is_novel
    assert float(re.search(r"within (\S+) of PyTorch", compared["drift"])[1]) < TOLERANCE  # of the novelty as well


def test_text_goes_with_the_picture(drive: Drive, url: str, fused: Path, tmp_path: Path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(tiny_fused_model.png((10, 90, 250)))
    texts = ["red circle", "Blue  circle", "red " * 9, ""]
    steps = [{"model": str(fused)}, {"picture": str(picture)}, *({"text": text} for text in texts)]
    start, opened, _, *states, compared = drive(url, *steps, {"click": "#compare"})
    assert (start["readsText"], opened["readsText"]) == (False, True)
    classifier = load(fused, device="cpu")
    for text, state in zip(texts, states, strict=True):
        prediction = classifier.predict(picture, text=text)
        check_answer(state, dict(prediction.top(2)), TOLERANCE)
        assert ("the end of the text was not read" in state["detail"]) == prediction.text_truncated
    assert float(re.search(r"within (\S+) of PyTorch", compared["drift"])[1]) < TOLERANCE


def test_the_camera_is_watched_until_it_is_stopped(drive: Drive, url: str, pictures: dict[str, Path], expected):
    answer = {"wait": "% · .* ms model"}
    steps = [
        {"click": "#camera"},
        answer,
        {"click": "#camera"},
        {"click": "#camera"},
        {"picture": str(pictures["odd"])},
    ]
    _, _, watching, stopped, _, chosen = drive(url, *steps)
    assert watching["error"] is stopped["error"] is None
    assert (watching["camera"], stopped["camera"]) == ("Stop the camera", "Use the camera")
    check_answer(chosen, expected(pictures["odd"]), TOLERANCE)


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


def test_a_port_in_use_says_what_to_do(url: str, node: str):
    port = str(urlsplit(url).port)
    ran = subprocess.run([node, str(FOLDER / "serve.mjs"), "--port", port], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"port {port} is in use by another program: name another with --port" in ran.stderr


@pytest.mark.parametrize("port", ["eighty", "-1", "65536", ""])
def test_a_port_that_is_none_is_a_usage_error(port: str, node: str):
    command = [node, str(FOLDER / "serve.mjs"), f"--port={port}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.startswith("usage: ")) == (2, True)


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
