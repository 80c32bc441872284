"""The Node.js example gives Python's answers with the very same model file."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_fused_model
import tiny_task_model
from clients import NODE as FOLDER
from clients import Run
from onnx_bytes import metadata
from PIL import Image

from clip_toolkit import Prediction, load
from clip_toolkit.classifier import Classifier
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS
from clip_toolkit.stream.records import record

TOLERANCE = 1e-4
"""Of probabilities, on the same pixels."""

DECODER_TOLERANCE = 1e-2
"""Of probabilities, where two decoders may round a pixel differently: JPEG files and transparent pixels."""


@pytest.fixture(scope="module")
def classify(node_example: Run) -> Run:
    return node_example


def same_record(
    classify: Run, model: Path, path: Path, classifier: Classifier, tolerance: float, text: str | None = None
) -> None:
    ran = classify(model, path, "--json", *(() if text is None else ("--text", text)))
    prediction = classifier.predict(path, text=text)
    assert (ran.returncode, "its end was left out" in ran.stderr) == (0, prediction.text_truncated)
    assert prediction.text_truncated or not ran.stderr
    ours = record(str(path), prediction, len(prediction.labels), classifier.provider, classifier.spec, text=text)
    assert_same(json.loads(ran.stdout), ours, tolerance)


def assert_same(theirs: dict[str, Any], ours: dict[str, Any], tolerance: float) -> None:
    assert {score["label"]: score["probability"] for score in theirs.pop("top")} == pytest.approx(
        {score["label"]: score["probability"] for score in ours.pop("top")}, abs=tolerance
    )
    assert theirs.pop("values", {}) == pytest.approx(ours.pop("values", {}), rel=1e-4, abs=tolerance)
    if "novelty" in ours:
        assert theirs.pop("novelty") == pytest.approx(ours.pop("novelty"), rel=1e-3)
    assert theirs == ours | {"probability": pytest.approx(ours["probability"], abs=tolerance)}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_answered_as_in_python(task: str, classify: Run, of_task: dict[str, Path], colours: list[Path]):
    classifier = load(of_task[task], device="cpu", resize="graph")
    ran = classify(of_task[task], *colours, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    said = []
    for line, path, prediction in zip(ran.stdout.splitlines(), colours, classifier.predict_many(colours), strict=True):
        ours = record(str(path), prediction, len(prediction.labels), classifier.provider, classifier.spec)
        assert_same(json.loads(line), ours, TOLERANCE)
        said.append(prediction.decisions)
    assert len(set(said)) >= {SINGLE_LABEL: 2, MULTI_LABEL: 3, REGRESSION: 1}[task]


@pytest.mark.parametrize("task", TASKS)
def test_golden_vectors(task: str, classify: Run, of_task: dict[str, Path], fused: Path, model: Path):
    for path in (of_task[task], fused, model):
        ran = classify(path, "--selftest")
        assert (ran.returncode, ran.stderr) == (0, "")
        assert float(re.search(r"drift (\S+),", ran.stdout)[1]) < TOLERANCE


def test_a_golden_vector_that_is_not_met_fails(classify: Run, of_task: dict[str, Path], tmp_path: Path):
    spec = tiny_task_model.spec(SINGLE_LABEL)
    wrong = replace(spec, golden=(replace(spec.golden[0], probabilities=(0.5, 0.5)),))
    path = tmp_path / "wrong.onnx"
    path.write_bytes(of_task[SINGLE_LABEL].read_bytes() + metadata(wrong.to_json()))
    ran = classify(path, "--selftest")
    assert ran.returncode == 1
    assert "does not decide as PyTorch did" in one_line(ran.stderr)


def test_a_bad_picture_does_not_stop_the_others(
    classify: Run, model: Path, pictures: dict[str, Path], broken: dict[str, Path]
):
    ran = classify(model, pictures["odd"], broken["text.png"], pictures["odd"], "--json")
    assert ran.returncode == 1
    assert [json.loads(line)["error"] is None for line in ran.stdout.splitlines()] == [True, False, True]


def test_a_tokenizer_that_reads_otherwise_is_refused(classify: Run, fused: Path, pictures: dict[str, Path]):
    spec = tiny_fused_model.spec()
    other = replace(spec, golden=tuple(replace(vector, input_ids=(2, 5, 3)) for vector in spec.golden))
    fused.write_bytes(tiny_fused_model.model(other.to_json()))
    ran = classify(fused, pictures["odd"], "--text", "red")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "otherwise than the model's own tokenizer" in one_line(ran.stderr)


def test_what_a_threshold_predicted_comes_first_and_is_marked(
    classify: Run, of_task: dict[str, Path], colours: list[Path]
):
    ran = classify(of_task[SINGLE_LABEL], *colours)
    marked = [line for line in ran.stdout.splitlines() if line.endswith(" *")]
    assert marked
    assert all("pneumonia" in line and ".png" in line for line in marked)
    assert ran.stdout.endswith("* predicted by a threshold\n")


def test_labels_cannot_command_the_terminal(
    classify: Run, of_task: dict[str, Path], colours: list[Path], tmp_path: Path
):
    path = tmp_path / "escape.onnx"
    spec = replace(tiny_task_model.spec(REGRESSION), labels=("a\x1b[2J", "b\nc"))
    path.write_bytes(of_task[REGRESSION].read_bytes() + metadata(spec.to_json()))
    ran = classify(path, colours[0])
    assert "\x1b" not in ran.stdout
    assert len(ran.stdout.splitlines()) == 3


@pytest.mark.parametrize("task", TASKS)
def test_images_unlike_the_training_images_are_told_as_in_python(
    task: str, classify: Run, colours: list[Path], tmp_path: Path
):
    path, bright = tmp_path / "novelty.onnx", tmp_path / "bright.png"
    path.write_bytes(tiny_task_model.model(task, novelty=True, relevance=True))
    Image.new("RGB", (8, 8), (10, 250, 30)).save(bright)
    classifier = load(path, device="cpu", resize="graph")
    assert [classifier.predict(image).is_novel for image in (colours[0], bright)] == [False, True]
    for image in (colours[0], bright):
        same_record(classify, path, image, classifier, TOLERANCE)
    assert "unlike the training images (novelty 250" in classify(path, bright).stdout
    assert classify(path, "--selftest").returncode == 0
    wrong = replace(classifier.spec.novelty, golden=(1.0,) * 4)
    path.write_bytes(path.read_bytes() + metadata(replace(classifier.spec, novelty=wrong).to_json()))
    assert classify(path, "--selftest").returncode == 1


def test_sets_of_labels_are_those_of_python(classify: Run, calibrated: Path, colours: list[Path]):
    classifier = load(calibrated, device="cpu", resize="graph")
    found = {image: classifier.predict(image).set or () for image in colours}
    by_size = {len(labels): image for image, labels in found.items()}
    assert sorted(by_size) == [1, 2]
    for image in by_size.values():
        same_record(classify, calibrated, image, classifier, TOLERANCE)
    assert f"one of these should be right: {', '.join(found[image])}\n" in classify(calibrated, image).stdout


DECIDE = """
import { readFileSync } from "node:fs";
import { answer, shownScores } from "%s";
const said = JSON.parse(readFileSync(0, "utf8")).map(({ spec, numbers }) => {
  const { label, labels, top } = answer(spec, { numbers: Float32Array.from(numbers) });
  return { label, labels: labels ?? null, first: shownScores({ label, labels, top })[0].label };
});
console.log(JSON.stringify(said));
"""


def test_decisions_are_pythons_even_at_the_threshold(node: str):
    cases, expected = [], []
    rng = np.random.default_rng(0)
    for number in range(400):
        task = (SINGLE_LABEL, MULTI_LABEL)[number % 2]
        probabilities = rng.choice([0.1, 0.2, 0.3, 0.5, 0.7, 0.9], 2).astype(np.float32)
        thresholds = {label: float(rng.choice([0.1, 0.3, 0.7, float(np.float32(0.3))])) for label in ("a", "b")}
        if task == SINGLE_LABEL:
            thresholds.pop(("a", "b")[number % 4 // 2])
        cases.append(
            {"spec": {"task": task, "labels": ["a", "b"], "thresholds": thresholds}, "numbers": probabilities.tolist()}
        )
        found = Prediction(("a", "b"), probabilities, probabilities, probabilities, "CPU", task, thresholds)
        labels = list(found.decisions) if task == MULTI_LABEL else None
        expected.append({"label": found.label, "labels": labels, "first": found.label or found.top(1)[0].label})
    script = DECIDE % (FOLDER.parent / "shared" / "answers.mjs").as_uri()
    command = [node, "--input-type=module", "-e", script]
    ran = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == expected


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
        ("task.onnx", "knows single-label, multi-label, regression"),
        ("threshold.onnx", "threshold"),
        ("text-tower.onnx", "holds a text tower"),
        ("pixels.onnx", "takes pixel, not pictures"),
        ("several.onnx", "holds the heads lungs, signs, numbers, and this program answers for one"),
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


@pytest.mark.parametrize("arguments", [(), ("model.onnx",), ("m", "i", "--selftest"), ("m", "i", "--loud")])
def test_usage(arguments: tuple[str, ...], classify: Run):
    ran = classify(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("usage: ")


def one_line(text: str) -> str:
    [line] = text.splitlines()
    return line
