"""``clip-eval --coverage``: a copy that gives sets of labels, and how they do."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_task_model
from onnx_bytes import metadata

from clip_eval.commands.evaluate import main
from clip_toolkit import load
from clip_toolkit.commands import infer
from clip_toolkit.errors import SpecError
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

Model = Callable[[str], Path]
Manifest = Callable[..., Path]
Evaluated = Callable[..., dict[str, Any]]


def test_the_copy_gives_sets_and_tells_how_they_do(
    model: Model, manifest: Manifest, evaluated: Evaluated, capsys: pytest.CaptureFixture[str]
):
    path = model(SINGLE_LABEL)
    data = manifest(path)  # one label of five is wrong
    assert evaluated(path, data)["sets"] is None
    assert main([str(path), str(data), "--coverage", "-o", "copy.onnx"]) == 0
    assert "give or take 0.04" in capsys.readouterr().err
    old, new = read_spec(path), read_spec("copy.onnx")
    assert new.coverage is not None
    assert (new.coverage.share, new.coverage.images) == (0.9, 40)
    assert replace(new, coverage=None, training=old.training) == old
    assert "0.9, calibrated by clip-eval on 40 images of data.csv" in new.training["coverage"]
    sets = evaluated("copy.onnx", data)["sets"]
    assert sets["coverage"]["value"] >= 0.9
    assert 1 < sets["size"] < 2
    predictions = list(load("copy.onnx", device="cpu").predict_many(sorted(str(file) for file in Path().glob("*.png"))))
    assert sum(len(found.set or ()) for found in predictions) == pytest.approx(40 * sets["size"])
    assert sum(len(found.set or ()) == 1 for found in predictions) == pytest.approx(40 * sets["alone"])
    assert main(["copy.onnx", str(data), "--report", "page.html"]) == 0
    assert "sets at 0.9: hold the right label of" in capsys.readouterr().out
    assert "sets at 0.9: hold the right label of" in Path("page.html").read_text()


def test_a_threshold_leaves_the_sets_as_they_are(model: Model, manifest: Manifest):
    path = model(SINGLE_LABEL)
    data = str(manifest(path))
    assert main([str(path), data, "--coverage", "0.8", "-o", "sets.onnx"]) == 0
    assert main(["sets.onnx", data, "--threshold", "specificity=1", "-o", "both.onnx"]) == 0
    assert main([str(path), data, "--threshold", "specificity=1", "--coverage", "0.8", "-o", "once.onnx"]) == 0
    first, second, third = (read_spec(f"{name}.onnx") for name in ("sets", "both", "once"))
    assert first.coverage == second.coverage == third.coverage
    assert first.thresholds != second.thresholds == third.thresholds


@pytest.mark.parametrize("task", [MULTI_LABEL, REGRESSION])
def test_tasks_without_one_label_are_refused(
    task: str, model: Model, manifest: Manifest, capsys: pytest.CaptureFixture[str]
):
    path = model(task)
    assert main([str(path), str(manifest(path)), "--coverage", "-o", "copy.onnx"]) == 1
    assert f"needs labels that exclude each other; the model has the task {task}" in capsys.readouterr().err
    assert not Path("copy.onnx").exists()


def test_several_heads_are_refused(model: Model, manifest: Manifest, capsys: pytest.CaptureFixture[str]):
    data = manifest(model(SINGLE_LABEL))
    Path("several.onnx").write_bytes(tiny_task_model.model_of_several())
    assert main(["several.onnx", str(data), "--coverage", "-o", "copy.onnx"]) == 1
    assert "holds the heads lungs, signs, numbers" in capsys.readouterr().err


def test_images_that_the_model_knows_are_refused_and_so_are_too_few(
    model: Model, manifest: Manifest, capsys: pytest.CaptureFixture[str]
):
    path = model(SINGLE_LABEL)
    data = str(manifest(path, split=["train"] * 20 + ["val"] * 12 + ["test"] * 8))
    for arguments, said in (
        (["--side", "val"], "images of the side val shaped the model"),
        (["--side", "all"], "images of the side train and val shaped the model"),
        ([], "--coverage 0.9: needs at least 9 images to promise that; there are 8"),
    ):
        assert main([str(path), data, "--coverage", "-o", "copy.onnx", *arguments]) == 1
        assert said in capsys.readouterr().err
        assert not Path("copy.onnx").exists()


def test_groups_weaken_the_promise_and_that_is_said(
    model: Model, manifest: Manifest, capsys: pytest.CaptureFixture[str]
):
    path = model(SINGLE_LABEL)
    data = manifest(path, group=[f"patient {number // 4}" for number in range(40)])
    assert main([str(path), str(data), "--coverage", "-o", "copy.onnx"]) == 0
    assert "images of one group are not independent" in capsys.readouterr().err


@pytest.fixture
def sets(model: Model) -> Path:
    """A file that also tells novelty, whose sets often hold both labels."""
    path = model(SINGLE_LABEL)
    path.write_bytes(tiny_task_model.model(SINGLE_LABEL, novelty=True, coverage=True))
    return path


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_records_show_sets_and_those_of_rejected_images_have_none(
    sets: Path, pictures: list[str], capsys: pytest.CaptureFixture[str], form: str
):
    expected = dict(zip(pictures, load(sets, device="cpu").predict_many(pictures), strict=True))
    assert infer.main([*pictures, "--model", str(sets), "--format", form, "--reject-novel"]) == 0
    shown = capsys.readouterr().out
    if form == "table":
        inside = sum(len(found.set or ()) for found in expected.values() if not found.is_novel)
        assert sum(line.endswith(" +") or " + " in line for line in shown.splitlines()[1:-2]) == inside
        assert "+ in the set that holds the right label of as many images as clip-infer --describe says" in shown
        assert infer.main([*pictures, "--model", str(sets)]) == 0  # with labels, of which nothing is promised
        assert sum(" +" in line for line in capsys.readouterr().out.splitlines()[1:-2]) == inside
        return
    rows = json.loads(shown) if form == "json" else list(csv.DictReader(shown.splitlines()))
    for row in rows:
        found = expected[row["image"]]
        labels = None if found.is_novel else [*(found.set or ())]
        assert row["set"] == (labels if form == "json" else ";".join(labels or []))
    assert {found.is_novel for found in expected.values()} == {False, True}
    assert {len(found.set or ()) for found in expected.values()} == {1, 2}


def test_parquet_has_a_column_of_sets(sets: Path, pictures: list[str]):
    arrow = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    assert infer.main([*pictures[:3], "--model", str(sets), "--output", "a.parquet"]) == 0
    found = load(sets, device="cpu").predict_many(pictures[:3])
    assert arrow.read_table("a.parquet")["set"].to_pylist() == [[*(item.set or ())] for item in found]


@pytest.mark.usefixtures("pictures")
def test_a_label_by_threshold_may_be_outside_of_its_set(sets: Path):
    spec = replace(
        read_spec(sets), thresholds={"pneumonia": 0.0}, coverage=replace(tiny_task_model.COVERAGE, quantile=0.0)
    )
    sets.write_bytes(sets.read_bytes() + metadata(spec.to_json()))
    found = next(
        item for item in load(sets, device="cpu").predict_many(["00.png", "01.png"]) if item.set == ("normal",)
    )
    assert found.label == "pneumonia"


def test_files_without_say_nothing_and_keep_their_bytes(model: Model, pictures: list[str]):
    assert "coverage" not in json.loads(tiny_task_model.spec(SINGLE_LABEL).to_json())
    assert load(model(SINGLE_LABEL), device="cpu").predict(pictures[0]).set is None


def test_it_is_described_and_a_damaged_promise_is_refused(sets: Path, capsys: pytest.CaptureFixture[str]):
    assert infer.main(["--describe", str(sets)]) == 0
    assert "hold the right one for 0.9 of further images like the 40 calibrated on" in capsys.readouterr().out
    for field, value in (("share", 1.0), ("quantile", -0.1), ("images", 0)):
        spec = json.loads(read_spec(sets).to_json())
        spec["coverage"][field] = value
        Path("damaged.onnx").write_bytes(sets.read_bytes() + metadata(json.dumps(spec)))
        with pytest.raises(SpecError, match=rf"coverage\.{field}"):
            read_spec("damaged.onnx")
    multi = replace(tiny_task_model.spec(MULTI_LABEL), coverage=tiny_task_model.COVERAGE)
    Path("damaged.onnx").write_bytes(tiny_task_model.model(MULTI_LABEL) + metadata(multi.to_json()))
    with pytest.raises(SpecError, match="single-label files of one head"):
        read_spec("damaged.onnx")
