"""``clip-eval --threshold``: a copy with another operating point."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_task_model
from onnx_bytes import metadata

from clip_eval.commands.evaluate import main
from clip_toolkit import load, selftest
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

Model = Callable[[str], Path]
Manifest = Callable[..., Path]


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_nothing_but_the_operating_point_changes(model: Model, manifest: Manifest, task: str):
    path = model(task)
    path.write_bytes(path.read_bytes() + metadata("other", "of another tool"))  # the spec is not at the end
    before = path.read_bytes()
    assert main([str(path), str(manifest(path)), "--threshold", "sensitivity=0.9", "-o", "copy.onnx"]) == 0
    assert path.read_bytes() == before
    old, new = read_spec(path), read_spec("copy.onnx")
    assert new.thresholds
    assert new.thresholds != old.thresholds
    assert replace(new, thresholds=old.thresholds, training=old.training) == old
    assert new.training["operating point"].startswith("sensitivity=0.9, chosen by clip-eval on 40 images of data.csv")
    spec = metadata(old.to_json())
    start = before.index(spec)
    copy = Path("copy.onnx").read_bytes()
    assert copy[:start] == before[:start]
    assert copy.endswith(before[start + len(spec) :])
    assert all(drift.passed for drift in selftest(load("copy.onnx", device="cpu")))


def test_the_copy_reaches_what_was_asked(model: Model, manifest: Manifest, capsys: pytest.CaptureFixture[str]):
    path = model(SINGLE_LABEL)
    data = manifest(path)
    arguments = [str(data), "--threshold", "specificity=1", "--positive", "normal", "-o", "copy.onnx"]
    assert main([str(path), *arguments]) == 0
    assert "for normal, chosen on these images" in capsys.readouterr().err
    assert list(read_spec("copy.onnx").thresholds) == ["normal"]
    assert main(["copy.onnx", str(data), "--json", "--positive", "normal"]) == 0
    (rates,) = json.loads(capsys.readouterr().out)["rates"]
    assert rates["specificity"]["value"] == 1


def test_none_removes_the_threshold(model: Model, manifest: Manifest):
    path = model(SINGLE_LABEL)
    assert main([str(path), str(manifest(path)), "--threshold", "most-probable", "-o", "copy.onnx"]) == 0
    assert read_spec("copy.onnx").thresholds == {}


def test_a_copy_that_does_not_pass_the_selftest_is_not_written(
    model: Model, manifest: Manifest, capsys: pytest.CaptureFixture[str]
):
    path = model(SINGLE_LABEL)
    data = manifest(path)
    spec = tiny_task_model.spec(SINGLE_LABEL)
    wrong = replace(spec.golden[0], logits=(9.0, 9.0))
    path.write_bytes(path.read_bytes() + metadata(replace(spec, golden=(wrong,)).to_json()))
    assert main([str(path), str(data), "--threshold", "youden", "-o", "copy.onnx"]) == 1
    assert "no copy was written" in capsys.readouterr().err
    assert not Path("copy.onnx").exists()


def test_rules_that_do_not_suit_the_model(model: Model, manifest: Manifest, capsys: pytest.CaptureFixture[str]):
    path = model(REGRESSION)
    assert main([str(path), str(manifest(path)), "--threshold", "youden", "-o", "copy.onnx"]) == 1
    assert "needs two labels, or a multi-label task" in capsys.readouterr().err
    path = model(MULTI_LABEL)
    Path("data.csv").write_text("path,label\n00.png,red\n01.png,red\n")
    assert main([str(path), "data.csv", "--threshold", "youden", "-o", "copy.onnx"]) == 1
    assert "so that no threshold can be chosen" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threshold", "youden"], "--threshold needs --output"),
        (["--coverage", "0.8"], "--coverage needs --output"),
        (["-o", "copy.onnx"], "--threshold, --coverage or --reference"),
        (["--coverage", "1", "-o", "copy.onnx"], "above 0 and below 1"),
        (["other.onnx", "data", "--threshold", "youden", "-o", "copy.onnx"], "leave OTHER out"),
        (["--threshold", "youden", "-o", "m.onnx"], "MODEL itself"),
        (["--threshold", "best", "-o", "copy.onnx"], "expected most-probable"),
        (["--reference"], "--reference needs --output"),
        (["--drift", "--side", "test"], "goes with MODEL, DATA"),
        (["--sensitivity", "0"], "above 0"),
    ],
)
def test_usage_errors(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_code:
        main(["m.onnx", *([] if arguments[0] == "other.onnx" else ["data"]), *arguments])
    assert exit_code.value.code == 2
    assert said in capsys.readouterr().err
