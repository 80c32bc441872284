"""A file with a head of each task answers for all of them by one run, in every form, and for none unsaid."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task_model
from numpy.typing import NDArray
from onnx_bytes import metadata

from clip_serve.models.kinds import Images
from clip_toolkit import Classifier, ImageError, ModelSpec, Prediction, SpecError, load, selftest
from clip_toolkit.listing import Style
from clip_toolkit.spec.classifier import check_one_head
from clip_toolkit.spec.description import describe
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.stream.records import lines, record
from clip_toolkit.stream.writers import write

SEVERAL = tiny_task_model.SEVERAL
FURTHER = [*SEVERAL][1:]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("several") / "several.onnx"
    path.write_bytes(tiny_task_model.model_of_several())
    return path


@pytest.fixture(scope="module")
def several(model: Path) -> Classifier:
    return load(model, device="cpu")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each head by itself."""
    folder = tmp_path_factory.mktemp("alone")
    paths = {name: folder / f"{name}.onnx" for name in SEVERAL}
    for name, task in SEVERAL.items():
        paths[name].write_bytes(tiny_task_model.model(task))
    return paths


def same(found: Prediction, expected: Prediction) -> bool:
    arrays = [(getattr(found, name), getattr(expected, name)) for name in ("probabilities", "logits", "embedding")]
    return found.decisions == expected.decisions and all(np.array_equal(one, two) for one, two in arrays)


@pytest.mark.parametrize("resize", ["pillow", "graph"])
def test_each_head_answers_as_a_file_of_its_own(
    model: Path, alone: dict[str, Path], pixels: NDArray[np.uint8], resize: str
):
    images = [pixels, pixels[::-1].copy(), np.zeros((9, 9, 3), np.uint8)]
    several = load(model, device="cpu", resize=resize)
    for image, found in zip(images, several.predict_many(images), strict=True):
        assert isinstance(found, Prediction)
        assert [*found.tasks] == FURTHER
        for name, answer in {"lungs": found, **found.tasks}.items():
            own = load(alone[name], device="cpu", resize=resize)
            assert same(answer, own.predict(image))
            assert same(several.heads[name].predict(image), own.predict(image))
        assert f"numbers={found.tasks['numbers']!r}" in repr(found)
    again = pickle.loads(pickle.dumps(several))  # noqa: S301  # our own
    assert same(again.predict(pixels), several.predict(pixels))


def test_the_selftest_replays_every_head(several: Classifier, model: Path, tmp_path: Path):
    drifts = selftest(several)
    assert {item.output for item in drifts} == {
        *("probabilities", "logits", "embedding"),
        *(f"{kind}_{name}" for kind in ("probabilities", "logits") for name in FURTHER),
    }
    assert all(item.passed for item in drifts)
    data = json.loads(several.spec.to_json())
    data["tasks"][0]["golden"][1]["logits"][0] += 1
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(model.read_bytes() + metadata(json.dumps(data)))
    failed = [item.output for item in selftest(load(damaged, device="cpu")) if not item.passed]
    assert set(failed) == {"logits_signs"}


def test_records_and_columns(several: Classifier, alone: dict[str, Path], pixels: NDArray[np.uint8]):
    found = several.predict(pixels)
    item = record("a.png", found, 3, "CPU", several.spec, columns=True)
    assert item["head"] == "lungs"
    for name, answer in {"lungs": item, **item["tasks"]}.items():
        own = record("a.png", load(alone[name]).predict(pixels), 3, "CPU", read_spec(alone[name]), columns=True)
        assert {key: value for key, value in own.items() if key in answer} == {
            key: answer[key] for key in own if key in answer
        }
        assert set(own) - set(answer) <= {"image", "provider", "error"}
    bad = record("b.png", ImageError("b.png: bad"), 3, "CPU", several.spec, columns=True)
    rows = [*csv.DictReader(lines([item, bad], Style("csv")))]
    assert rows[0]["signs.label"] == ";".join(found.tasks["signs"].decisions)
    assert float(rows[0]["signs.p:red"]) == pytest.approx(found.tasks["signs"].probabilities[0])
    assert float(rows[0]["numbers.age"]) == pytest.approx(found.tasks["numbers"].values["age"])
    assert rows[1]["error"] == "b.png: bad"
    assert rows[1]["numbers.age"] == rows[1]["signs.label"] == ""
    shown = "\n".join(lines([item, bad], Style("table")))
    assert shown.splitlines()[0].split() == ["image", "head", "label", "probability", "or", "value"]
    assert all(f" {name} " in shown for name in SEVERAL)


def test_parquet_has_the_columns_of_every_head(several: Classifier, pixels: NDArray[np.uint8], tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = several.predict(pixels)
    items = [record("a.png", found, 1, "CPU", several.spec, columns=True)]
    write(items, Style("parquet"), tmp_path / "a.parquet", several.spec)
    (row,) = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert row["label"] == found.label
    assert row["signs.labels"] == list(found.tasks["signs"].decisions)
    assert row["signs.p:2"] == pytest.approx(found.tasks["signs"].probabilities[1])
    assert row["numbers.values"] == found.tasks["numbers"].values


def test_the_description_names_every_head(model: Path):
    text = "\n".join(describe(read_spec(model), model))
    assert "lungs, signs, numbers, by one run of the encoder" in text
    assert "signs: labels" in text
    assert "numbers: values" in text
    assert "version 2.0" in text


def test_the_service_has_the_outputs_of_every_head(several: Classifier, pixels: NDArray[np.uint8]):
    kind = Images(several)
    (result,) = kind.compute([kind.prepare((pixels, None))])
    assert kind.outputs["values_numbers"] == 2
    assert np.array_equal(kind.row(result, "values_numbers"), result.tasks["numbers"].logits)
    assert np.array_equal(kind.row(result, "probabilities_signs"), result.tasks["signs"].probabilities)
    assert np.array_equal(kind.row(result, "logits"), result.logits)
    assert kind.labels_of("logits_signs") == tiny_task_model.spec_of_several().tasks[0].labels


def test_the_spec_survives_the_round_trip():
    spec = tiny_task_model.spec_of_several()
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert ModelSpec.joined(spec.heads.values()) == spec
    one = tiny_task_model.spec("single-label")
    assert not {"tasks", "name"} & set(json.loads(one.to_json()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.update(version="1.7"), "2.0 with several heads"),
        (lambda data: data.update(name="signs"), "names that differ"),
        (lambda data: data["tasks"][0].update(name="a.b"), "names that differ"),
        (lambda data: data["tasks"][0]["golden"].pop(), "4 golden answers"),
        (lambda data: data["tasks"][0].update(temperature=0), "temperature"),
        (lambda data: data["tasks"][1].update(labels=["one"]), "head.layers"),
        (lambda data: data.update(version="3.0"), "reads up to 2.0"),
    ],
)
def test_contradictions_are_refused(change: Callable[[dict[str, Any]], object], said: str):
    data = json.loads(tiny_task_model.spec_of_several().to_json())
    change(data)
    with pytest.raises(SpecError, match=said):
        ModelSpec.from_json(json.dumps(data))


def test_who_answers_for_one_head_says_so():
    with pytest.raises(
        SpecError, match=r"the heads lungs, signs, numbers, and this app answers for one\. Use clip-serve"
    ):
        check_one_head(tiny_task_model.spec_of_several(), "this app", "clip-serve")
    check_one_head(tiny_task_model.spec("single-label"), "this app", "clip-serve")
