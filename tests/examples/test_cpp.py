"""The C++ example builds, and gives Python's answers with the very same model file and library."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_task_model
from clients import CPP as FOLDER
from clients import Run, run
from PIL import Image

from clip_toolkit import load
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS

TOLERANCE = 1e-4
"""Of probabilities, on the same pixels."""


@pytest.fixture(scope="module")
def classify(cpp_example: Run) -> Run:
    return cpp_example


@pytest.mark.skipif(not shutil.which("cmake"), reason="CMake is not installed. Run: apt-get install cmake")
def test_missing_headers_are_told_where_to_get(tmp_path: Path):
    done = run("cmake", "-S", FOLDER, "-B", tmp_path, "-DONNXRUNTIME_INCLUDE_DIR:PATH=")
    assert done.returncode == 1
    told = " ".join(done.stderr.split())
    assert "github.com/microsoft/onnxruntime/releases" in told
    assert "-DONNXRUNTIME_ROOT=" in told


@pytest.fixture
def ppm(tmp_path: Path) -> Callable[[Path], Path]:
    def convert(path: Path) -> Path:
        converted = tmp_path / f"{path.stem}.ppm"
        Image.open(path).save(converted)
        return converted

    return convert


@pytest.mark.parametrize("name", ["portrait", "landscape", "model-size", "odd", "smaller", "large"])
def test_record_is_pythons(
    name: str,
    classify: Run,
    model: Path,
    pictures: dict[str, Path],
    ppm: Callable[[Path], Path],
    expected: Callable[[Path], dict[str, float]],
):
    path = ppm(pictures[name])
    ran = classify(model, path, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    record = json.loads(ran.stdout)
    probabilities = {score["label"]: score["probability"] for score in record["top"]}
    assert list(record) == ["image", "label", "probability", "top", "provider", "error"]
    assert (record["image"], record["label"], record["error"]) == (str(path), next(iter(probabilities)), None)
    assert list(probabilities) == list(expected(path))
    assert probabilities == pytest.approx(expected(path), abs=TOLERANCE)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_answered_as_in_python(
    task: str, classify: Run, of_task: dict[str, Path], colours: list[Path], ppm: Callable[[Path], Path]
):
    classifier = load(of_task[task], device="cpu", resize="graph")
    ran = classify(of_task[task], *map(ppm, colours), "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    for line, prediction in zip(ran.stdout.splitlines(), classifier.predict_many(colours), strict=True):
        theirs = json.loads(line)
        scores = {score["label"]: score["probability"] for score in theirs["top"]}
        assert scores == pytest.approx(dict(prediction.top(9)), abs=TOLERANCE)
        assert theirs["label"] == prediction.label
        assert theirs["probability"] == pytest.approx(prediction.probability, abs=TOLERANCE)
        assert theirs.get("values", {}) == pytest.approx(prediction.values, rel=TOLERANCE, abs=TOLERANCE)
        assert tuple(theirs.get("labels", prediction.decisions)) == prediction.decisions
    assert ("labels" in theirs, "values" in theirs) == (task == MULTI_LABEL, task == REGRESSION)


@pytest.mark.parametrize("task", TASKS)
def test_golden_vectors(task: str, classify: Run, of_task: dict[str, Path], model: Path, tmp_path: Path):
    for path in (of_task[task], model):
        for vector in read_spec(path).golden:
            Image.open(io.BytesIO(vector.png)).convert("RGB").save(tmp_path / "golden.ppm")
            told = json.loads(classify(path, tmp_path / "golden.ppm", "--json").stdout)
            numbers = told.get("values") or {score["label"]: score["probability"] for score in told["top"]}
            expected = vector.probabilities or vector.logits
            assert numbers == pytest.approx(dict(zip(read_spec(path).labels, expected, strict=True)), abs=1e-3)


def test_what_a_threshold_predicted_comes_first_and_says_so(
    classify: Run, of_task: dict[str, Path], colours: list[Path], ppm
):
    rows = classify(of_task[SINGLE_LABEL], *map(ppm, colours)).stdout.splitlines()
    marked = [index for index, row in enumerate(rows) if row.endswith("(by its threshold)")]
    assert marked
    assert all("pneumonia" in rows[index] and rows[index - 1].endswith(".ppm") for index in marked)


@pytest.mark.parametrize("task", TASKS)
def test_images_unlike_the_training_images_are_told_as_in_python(
    task: str, classify: Run, colours: list[Path], ppm: Callable[[Path], Path], tmp_path: Path
):
    path, bright = tmp_path / "novelty.onnx", tmp_path / "bright.png"
    path.write_bytes(tiny_task_model.model(task, novelty=True, relevance=True))
    Image.new("RGB", (8, 8), (10, 250, 30)).save(bright)
    classifier = load(path, device="cpu", resize="graph")
    for image, is_novel in ((colours[0], False), (bright, True)):
        prediction, told = classifier.predict(image), json.loads(classify(path, ppm(image), "--json").stdout)
        assert told["novelty"] == pytest.approx(prediction.novelty, rel=1e-3)
        assert told["is_novel"] is prediction.is_novel is is_novel
        assert ("unlike the training images" in classify(path, ppm(image)).stdout) is is_novel


def test_sets_of_labels_are_those_of_python(
    classify: Run, calibrated: Path, colours: list[Path], ppm: Callable[[Path], Path]
):
    classifier = load(calibrated, device="cpu", resize="graph")
    found = {image: classifier.predict(image).set or () for image in colours}
    by_size = {len(labels): image for image, labels in found.items()}
    assert sorted(by_size) == [1, 2]
    for image in by_size.values():
        assert json.loads(classify(calibrated, ppm(image), "--json").stdout)["set"] == [*found[image]]
        assert f"one of these should be right: {' '.join(found[image])}\n" in classify(calibrated, ppm(image)).stdout


def test_nothing_is_written_to_the_home_folder(classify: Run, model: Path, pictures, ppm, tmp_path: Path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    assert classify(model, ppm(pictures["odd"])).returncode == 0
    assert list(home.iterdir()) == []


def test_a_bad_picture_does_not_stop_the_others(classify: Run, model: Path, pictures: dict[str, Path], broken, ppm):
    good = ppm(pictures["odd"])
    ran = classify(model, good, broken["text.png"], good, "--json")
    assert (ran.returncode, len(ran.stdout.splitlines())) == (1, 2)
    assert "text.png" in ran.stderr


def test_table_lists_all_labels(classify: Run, model: Path, pictures: dict[str, Path], ppm, expected):
    path = ppm(pictures["odd"])
    name, *rows = classify(model, path).stdout.splitlines()
    assert name == str(path)
    assert [row.split("%  ")[1] for row in rows] == list(expected(path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"P3\n1 1\n255\n0 0 0\n",
        b"P6\n2 2\n255\n\x00\x00\x00",
        b"P6\n-1 2\n255\n",
        b"P6\n1 1\n65535\n\x00\x00\x00\x00\x00\x00",
        b"P6\n99999999999 99999999999\n255\n",
        b"P6\n2001 2\n255\n",
    ],
    ids=["empty", "ascii", "cut", "negative", "16-bit", "huge", "endless"],
)
def test_bad_picture(content: bytes, classify: Run, model: Path, tmp_path: Path):
    path = tmp_path / "bad.ppm"
    path.write_bytes(content)
    ran = classify(model, path)
    assert (ran.returncode, ran.stdout) == (1, "")
    [line] = ran.stderr.splitlines()
    assert line.startswith(f"classify: {path}: ")


def test_comments_in_the_header(classify: Run, model: Path, tmp_path: Path):
    path = tmp_path / "comment.ppm"
    path.write_bytes(b"P6 # made by hand\n1 # wide\n 1\n255\n\x10\x20\x30")
    assert classify(model, path).returncode == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.png", ""),
        ("text.onnx", ""),
        ("cut.onnx", ""),
        ("foreign.onnx", "not one of clip-export"),
        ("newer.onnx", "format version 9."),
        ("task.onnx", "knows single-label, multi-label and regression"),
        ("threshold.onnx", "threshold"),
        ("text-tower.onnx", "holds a text tower"),
        ("pixels.onnx", "takes pixel, not pictures"),
        ("fused.onnx", "has no tokenizer"),
        ("several.onnx", "holds the heads lungs, signs, numbers, and this program answers for one"),
    ],
)
def test_bad_model(name: str, reason: str, classify: Run, pictures: dict[str, Path], broken: dict[str, Path], ppm):
    ran = classify(broken[name], ppm(pictures["odd"]))
    assert (ran.returncode, ran.stdout) == (1, "")
    [line] = ran.stderr.splitlines()
    assert line.startswith(f"classify: {broken[name]}: ")
    assert reason in line


@pytest.mark.parametrize("arguments", [(), ("model.onnx",), ("model.onnx", "a.ppm", "--loud")])
def test_usage(arguments: tuple[str, ...], classify: Run):
    ran = classify(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
