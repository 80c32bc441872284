"""Images unlike the training images: what the runtime makes of the output ``novelty``."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_task_model
from onnx_bytes import metadata
from tiny_fused_model import png

from clip_scale import BatchClassifier
from clip_toolkit import load, selftest
from clip_toolkit.commands.infer import main
from clip_toolkit.errors import ModelError, SpecError
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS

Model = Callable[[str], Path]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A file of a task, beside a familiar and a novel picture."""
    (tmp_path / "dull.png").write_bytes(png((200, 30, 40)))
    (tmp_path / "bright.png").write_bytes(png((10, 90, 250)))

    def write(task: str) -> Path:
        path = tmp_path / "novelty.onnx"
        path.write_bytes(tiny_task_model.model(task, novelty=True))
        return path

    return write


@pytest.mark.parametrize("task", TASKS)
def test_predictions_tell_it_and_the_selftest_replays_it(model: Model, task: str):
    classifier = load(model(task), device="cpu")
    dull, bright = classifier.predict_many(["dull.png", "bright.png"])
    assert (dull.novelty, dull.is_novel) == (200, False)
    assert (bright.novelty, bright.is_novel) == (250, True)
    assert {drift.output for drift in selftest(classifier)} >= {"novelty", "embedding"}
    assert all(drift.passed for drift in selftest(classifier))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_task_model, "_GOLDEN", ((0, 0, 0),) * 4)
        wrong = tiny_task_model.model(task, novelty=True)
    Path("wrong.onnx").write_bytes(tiny_task_model.model(task, novelty=True) + metadata(_golden_of(wrong)))
    failed = [drift for drift in selftest(load("wrong.onnx", device="cpu")) if not drift.passed]
    assert {drift.output for drift in failed} == {"novelty"}


def _golden_of(other: bytes) -> str:
    """The spec of the file, with the golden novelty of another."""
    Path("other.onnx").write_bytes(other)
    spec = json.loads(read_spec("novelty.onnx").to_json())
    spec["novelty"]["golden"] = json.loads(read_spec("other.onnx").to_json())["novelty"]["golden"]
    return json.dumps(spec)


def test_files_without_it_keep_their_spec_and_say_nothing(tmp_path: Path):
    spec = tiny_task_model.spec(SINGLE_LABEL)
    assert "novelty" not in json.loads(spec.to_json())
    path = tmp_path / "plain.onnx"
    path.write_bytes(tiny_task_model.model(SINGLE_LABEL))
    classifier = load(path, device="cpu")
    found = classifier.predict(png((250, 250, 250)))
    assert (found.novelty, found.is_novel) == (None, None)
    with pytest.raises(ModelError, match="clip-train --novelty"):
        classifier.novelty(classifier.pixels(png((1, 2, 3)))[None])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_records_show_it_and_reject(model: Model, capsys: pytest.CaptureFixture[str], task: str, form: str):
    arguments = ["dull.png", "bright.png", "--model", str(model(task)), "--format", form]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert main([*arguments, "--reject-novel"]) == 0
    rejected = capsys.readouterr().out
    if form == "table":
        assert "250 !" in shown
        assert "the label may mean nothing" in shown
        assert "(unlike the training images)" in rejected
        return
    rows = [
        json.loads(text) if form == "json" else list(csv.DictReader(text.splitlines())) for text in (shown, rejected)
    ]
    (first, second), (kept, refused) = rows
    assert [float(row["novelty"]) for row in (first, second)] == [200, 250]
    assert kept == first
    assert (str(refused["is_novel"]), float(refused["novelty"])) == ("True", 250)
    told = {key: value for key, value in refused.items() if key not in {"image", "provider", "novelty", "is_novel"}}
    assert not any(any(value.values()) if isinstance(value, dict) else value for value in told.values())
    answered = {SINGLE_LABEL: "label", MULTI_LABEL: "p:red", REGRESSION: "age"}[task]
    assert form == "json" or (second[answered] and not refused[answered])


def test_columns_of_the_engines_have_it(model: Model):
    batch = {"path": np.array(["dull.png", "bright.png", "missing.png"], object)}
    found = BatchClassifier(str(model(SINGLE_LABEL)))(batch)
    np.testing.assert_array_equal(found["novelty"], [200, 250, np.nan])
    assert found["is_novel"].tolist() == [False, True, None]


def test_rejecting_needs_a_file_that_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.png").write_bytes(png((1, 2, 3)))
    (tmp_path / "plain.onnx").write_bytes(tiny_task_model.model(SINGLE_LABEL))
    assert main(["a.png", "--model", "plain.onnx", "--reject-novel"]) == 1
    assert "Train its head with clip-train --novelty, and export it again" in capsys.readouterr().err


def test_it_is_described(model: Model, capsys: pytest.CaptureFixture[str]):
    assert main(["--describe", str(model(SINGLE_LABEL))]) == 0
    assert "unlike the training images beyond 240, as 5.0% of 20 validation images are" in capsys.readouterr().out


def test_a_graph_without_the_output_and_a_damaged_spec_are_refused(tmp_path: Path, model: Model):
    spec = json.loads(read_spec(model(SINGLE_LABEL)).to_json())
    path = tmp_path / "plain.onnx"
    path.write_bytes(tiny_task_model.model(SINGLE_LABEL) + metadata(json.dumps(spec)))
    with pytest.raises(ModelError, match="the metadata declares the outputs"):
        load(path, device="cpu")
    spec["novelty"]["threshold"] = -1
    path.write_bytes(tiny_task_model.model(SINGLE_LABEL) + metadata(json.dumps(spec)))
    with pytest.raises(SpecError, match=r"novelty\.threshold"):
        read_spec(path)
