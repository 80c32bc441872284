"""The Node.js example gives Python's answers with the very same model file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_fused_model
from PIL import Image

from clip_toolkit import load
from clip_toolkit.classifier import Classifier
from clip_toolkit.stream.records import record

FOLDER = Path(__file__).parents[2] / "examples" / "node"

TOLERANCE = 1e-4
"""Of probabilities, on the same pixels."""

DECODER_TOLERANCE = 1e-2
"""Of probabilities, where two decoders may round a pixel differently: JPEG files and transparent pixels."""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def classify(node: str) -> Run:
    if not (FOLDER / "node_modules").is_dir():
        pytest.skip("the packages of examples/node are not installed. Run: make examples")
    command = [node, str(FOLDER / "classify.mjs")]
    return lambda *arguments: subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )


def same_record(
    classify: Run, model: Path, path: Path, classifier: Classifier, tolerance: float, text: str | None = None
) -> None:
    ran = classify(model, path, "--json", *(() if text is None else ("--text", text)))
    prediction = classifier.predict(path, text=text)
    assert (ran.returncode, "its end was left out" in ran.stderr) == (0, prediction.text_truncated)
    assert prediction.text_truncated or not ran.stderr
    theirs = json.loads(ran.stdout)
    spec = classifier.spec
    ours = record(str(path), prediction, len(spec.labels), classifier.provider, spec, text=text)
    assert {score["label"]: score["probability"] for score in theirs.pop("top")} == pytest.approx(
        {score["label"]: score["probability"] for score in ours.pop("top")}, abs=tolerance
    )
    assert theirs == ours | {"probability": pytest.approx(ours["probability"], abs=tolerance)}


@pytest.mark.parametrize("name", ["portrait", "landscape", "model-size", "odd", "smaller", "large"])
def test_record_is_pythons(name: str, classify: Run, model: Path, pictures: dict[str, Path], classifier: Classifier):
    same_record(classify, model, pictures[name], classifier, TOLERANCE)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_other_modes_decode_alike(
    mode: str, classify: Run, model: Path, pictures: dict[str, Path], classifier: Classifier, tmp_path: Path
):
    path = tmp_path / "picture.png"
    Image.open(pictures["odd"]).convert(mode).save(path)
    same_record(classify, model, path, classifier, TOLERANCE)


def test_transparency_is_over_white(classify: Run, model: Path, transparent: Path, classifier: Classifier):
    same_record(classify, model, transparent, classifier, DECODER_TOLERANCE)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photos_are_turned_upright(
    orientation: int, classify: Run, model: Path, photo: Callable[[int], Path], classifier: Classifier
):
    same_record(classify, model, photo(orientation), classifier, DECODER_TOLERANCE)


def test_table_lists_all_labels(
    classify: Run, model: Path, pictures: dict[str, Path], expected: Callable[[Path], dict[str, float]]
):
    ran = classify(model, pictures["odd"])
    header, *rows = ran.stdout.splitlines()
    assert header.split() == ["image", "label", "probability"]
    assert rows[0].startswith(str(pictures["odd"]))
    assert all(label in row for label, row in zip(expected(pictures["odd"]), rows, strict=True))


@pytest.fixture
def fused(tmp_path: Path) -> Path:
    path = tmp_path / "fused.onnx"
    path.write_bytes(tiny_fused_model.model())
    return path


@pytest.mark.parametrize("text", ["red circle", "", "Blue  circle", "red " * 9])
def test_text_goes_with_the_picture(text: str, classify: Run, fused: Path, tmp_path: Path):
    path = tmp_path / "picture.png"
    path.write_bytes(tiny_fused_model.png((10, 90, 250)))
    same_record(classify, fused, path, load(fused, device="cpu"), TOLERANCE, text)


def test_text_and_none_are_not_mixed_up(classify: Run, fused: Path, model: Path, pictures: dict[str, Path]):
    for file, options, reason in (
        (fused, (), "give it one with --text"),
        (model, ("--text", "red"), "leave out --text"),
    ):
        ran = classify(file, pictures["odd"], *options)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert reason in one_line(ran.stderr)


@pytest.mark.parametrize("name", ["missing.png", "text.png", "empty.png", "cut.png"])
def test_bad_picture(name: str, classify: Run, model: Path, broken: dict[str, Path]):
    ran = classify(model, broken[name], "--json")
    assert ran.returncode == 1
    assert one_line(ran.stderr).startswith(f"classify: {broken[name]}: ")
    failed = json.loads(ran.stdout)
    assert failed["error"].startswith(str(broken[name]))
    assert (failed["label"], failed["top"]) == (None, [])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.png", "there is no such file"),
        ("text.onnx", "expected an ONNX file"),
        ("empty.onnx", "expected an ONNX file"),
        ("cut.onnx", "expected an ONNX file"),
        ("foreign.onnx", "only files of clip-export"),
        ("newer.onnx", "format version 9."),
        ("task.onnx", "does not say the most probable label"),
    ],
)
def test_bad_model(name: str, reason: str, classify: Run, pictures: dict[str, Path], broken: dict[str, Path]):
    ran = classify(broken[name], pictures["odd"])
    assert (ran.returncode, ran.stdout) == (1, "")
    assert one_line(ran.stderr).startswith(f"classify: {broken[name]}: ")
    assert reason in ran.stderr


def test_endless_picture(classify: Run, model: Path, tmp_path: Path):
    path = tmp_path / "long.png"
    Image.new("RGB", (2001, 2)).save(path)
    ran = classify(model, path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "2001x2" in one_line(ran.stderr)


@pytest.mark.parametrize("arguments", [(), ("model.onnx",), ("model.onnx", "a.png", "b.png"), ("m", "i", "--loud")])
def test_usage(arguments: tuple[str, ...], classify: Run):
    ran = classify(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert one_line(ran.stderr).startswith("usage: ")


def one_line(text: str) -> str:
    [line] = text.splitlines()
    return line
