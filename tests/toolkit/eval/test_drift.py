"""``clip-eval --reference`` and ``--drift``: whether new images are still like the ones before."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_task_model
from onnx_bytes import metadata
from tiny_fused_model import png

from clip_eval.commands.evaluate import main
from clip_toolkit import load
from clip_toolkit.commands import infer
from clip_toolkit.errors import SpecError
from clip_toolkit.judging import drift
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS

Model = Callable[[str], Path]
Manifest = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "DRAWS", 999)


@pytest.fixture
def referenced(tmp_path: Path, manifest: Manifest) -> Callable[[str], Path]:
    """Write the model of a task with reference statistics of the pictures, and novelty."""

    def write(task: str) -> Path:
        plain, copy = tmp_path / "plain.onnx", tmp_path / "reference.onnx"
        plain.write_bytes(tiny_task_model.model(task, novelty=True))
        assert main([str(plain), str(manifest(plain)), "--reference", "-o", str(copy)]) == 0
        return copy

    return write


@pytest.fixture
def others(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of 40 pictures like the ones before, and of 40 that are blue and bright."""
    rng = np.random.default_rng(8)
    alike, moved = tmp_path / "alike", tmp_path / "moved"
    for folder in (alike, moved):
        folder.mkdir()
        for number, colour in enumerate(rng.integers(0, 256, (40, 3)).tolist()):
            shown = tuple(colour) if folder == alike else (colour[0] // 4, colour[1] // 4, 245)
            (folder / f"{number:02}.png").write_bytes(png(shown))
    return alike, moved


@pytest.mark.parametrize("task", TASKS)
def test_moved_images_are_told_and_like_ones_are_not(
    task: str, referenced: Callable[[str], Path], others: tuple[Path, Path], capsys: Capture
):
    copy, (alike, moved) = referenced(task), others
    capsys.readouterr()
    assert main(["--drift", str(copy), str(alike), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["drift"] == []
    assert main(["--drift", str(copy), str(moved), "--json", "--report", "drift.html"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["drift"]) == {"novelty", "embedding"} | ({"labels"} if task != REGRESSION else set())
    assert told["found"] == {"images": 40, "failed": 0, "answered": 40, "novel": 40, "labels": told["found"]["labels"]}
    predictions = list(load(copy, device="cpu").predict_many(sorted(moved.iterdir())))
    for label, count in told["found"]["labels"].items():
        assert count == sum(label in found.decisions for found in predictions)
    page = Path("drift.html").read_text()
    assert "drift: " in page
    assert ("Predicted labels" in page) is (task != REGRESSION)


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_results_are_read_instead_of_images(
    task: str, referenced: Callable[[str], Path], others: tuple[Path, Path], capsys: Capture
):
    copy, (_, moved) = referenced(task), others
    assert infer.main([str(moved), "--model", str(copy), "--output", "results.jsonl"]) == 0
    assert infer.main([str(moved), "--model", str(copy), "--output", "kept.jsonl", "--reject-novel"]) == 0
    capsys.readouterr()
    for data in (moved, "results.jsonl", "kept.jsonl"):
        assert main(["--drift", str(copy), str(data), "--json"]) == 0
    images, results, rejected = map(json.loads, capsys.readouterr().out.replace("}\n{", "}\0{").split("\0"))
    assert results["found"] == images["found"]
    assert results["tests"][:2] == images["tests"][:2]
    assert results["tests"][2]["p"] is None
    assert rejected["found"]["answered"] == 0  # all of them are novel
    assert rejected["tests"][0]["text"] == "not tested: every image was rejected"
    assert rejected["tests"][1] == images["tests"][1]


def test_embeddings_in_results_are_tested(referenced: Callable[[str], Path], pictures: list[str], capsys: Capture):
    copy = referenced(SINGLE_LABEL)
    rows = [
        {"label": found.label, "is_novel": found.is_novel, "embedding": found.embedding.tolist()}
        for found in load(copy, device="cpu").predict_many(pictures)
    ]
    Path("results.jsonl").write_text("\n".join(map(json.dumps, rows)))
    capsys.readouterr()
    assert main(["--drift", str(copy), "results.jsonl"]) == 0
    shown = capsys.readouterr()
    assert "the means are 0.000 standard deviations apart" in shown.out  # the very images of the reference
    assert "no drift shown (at 1%)" in shown.out
    assert "taken to be what" in shown.err
    rows[0]["embedding"] = [1.0]
    Path("results.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["--drift", str(copy), "results.jsonl"]) == 1
    assert "expected embeddings of 3 numbers each" in capsys.readouterr().err


def test_few_images_and_files_without_novelty_say_what_is_not_tested(
    model: Model, manifest: Manifest, others: tuple[Path, Path], capsys: Capture
):
    path, (alike, _) = model(SINGLE_LABEL), others
    assert main([str(path), str(manifest(path)), "--reference", "-o", "copy.onnx"]) == 0
    for image in sorted(alike.iterdir())[:20]:
        image.unlink()
    capsys.readouterr()
    assert main(["--drift", "copy.onnx", str(alike)]) == 0
    shown = capsys.readouterr().out
    assert "not tested: at least 30 images are needed, there are 20" in shown
    assert "not tested: the model file does not tell it (clip-train --novelty)" in shown
    rejected = {"image": "a.png", "label": None, "top": [], "error": None}
    Path("rejected.jsonl").write_text(json.dumps(rejected))
    assert main(["--drift", "copy.onnx", "rejected.jsonl"]) == 0
    assert "nothing could be tested" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(
    model: Model, referenced: Callable[[str], Path], others: tuple[Path, Path], tmp_path: Path, capsys: Capture
):
    assert main(["--drift", str(model(SINGLE_LABEL)), str(others[0])]) == 1
    assert "clip-eval MODEL DATA --reference --output COPY" in capsys.readouterr().err
    copy, empty = referenced(SINGLE_LABEL), tmp_path / "empty"
    empty.mkdir()
    for content, said in (
        ('{"label": "cat"}', "results of another model"),
        ('{"image": "a.png"}', "results of another model"),
        ("[]", "line 1: expected a record of clip-infer"),
        ("nonsense", "cannot be read as JSON lines"),
        ('{"error": "broken"}', "no results in it, or errors alone"),
    ):
        Path("results.jsonl").write_text(content)
        assert main(["--drift", str(copy), "results.jsonl"]) == 1
        assert said in capsys.readouterr().err
    assert main(["--drift", str(copy), str(empty)]) == 1
    assert "there are no images" in capsys.readouterr().err


def test_unreadable_images_are_counted(referenced: Callable[[str], Path], others: tuple[Path, Path], capsys: Capture):
    copy, (alike, _) = referenced(SINGLE_LABEL), others
    (alike / "broken.png").write_bytes(b"nothing")
    assert main(["--drift", str(copy), str(alike)]) == 1
    assert "40 images against 40 reference images, 1 others could not be read" in capsys.readouterr().out


def test_another_threshold_leaves_the_statistics_out(
    referenced: Callable[[str], Path], manifest: Manifest, capsys: Capture
):
    copy = referenced(SINGLE_LABEL)
    assert read_spec(copy).reference is not None
    assert main([str(copy), str(manifest(copy)), "--threshold", "youden", "-o", "other.onnx"]) == 0
    assert "Add them with --reference" in capsys.readouterr().err
    assert read_spec("other.onnx").reference is None
    assert '"reference"' not in read_spec("other.onnx").to_json()


def test_images_that_the_model_knows_are_no_reference(model: Model, manifest: Manifest, capsys: Capture):
    path = model(SINGLE_LABEL)
    data = str(manifest(path, split=["train"] * 20 + ["test"] * 20))
    assert main([str(path), data, "--reference", "-o", "copy.onnx", "--side", "train"]) == 1
    assert "--reference: images of the side train shaped the model" in capsys.readouterr().err


def test_damaged_statistics_are_refused(referenced: Callable[[str], Path]):
    copy = referenced(SINGLE_LABEL)
    spec = read_spec(copy)
    assert spec.reference is not None
    for field, value in (
        ("images", 0),
        ("labels", {"cat": 1}),
        ("novel", None),
        ("mean", (1.0,)),
        ("spread", (-1.0,) * 3),
    ):
        damaged = replace(spec, reference=replace(spec.reference, **{field: value}))
        Path("damaged.onnx").write_bytes(copy.read_bytes() + metadata(damaged.to_json()))
        with pytest.raises(SpecError, match="reference"):
            read_spec("damaged.onnx")
