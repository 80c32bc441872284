"""Two models on held-out images: figures, and the images whose answers changed."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_task_model
from tiny_fused_model import png

from clip_app.comparing import compare, held_out
from clip_toolkit import Classifier, load
from clip_toolkit.data.dataset import Dataset
from clip_toolkit.data.manifest import read_manifest
from clip_toolkit.errors import DatasetError
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

COLOURS = {"red.png": (200, 30, 40), "blue.png": (10, 90, 250), "dark.png": (9, 40, 20)}


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[str], Classifier]:
    def make(task: str) -> Classifier:
        path = tmp_path / f"{task}.onnx"
        path.write_bytes(tiny_task_model.model(task))
        for name, colour in COLOURS.items():
            (tmp_path / name).write_bytes(png(colour))
        return load(path, device="cpu")

    return make


def read(folder: Path, task: str, heading: str, rows: list[str]) -> Dataset:
    path = folder / "training.csv"
    path.write_text("\n".join([heading, *rows, ""]), encoding="utf-8")
    return read_manifest(path, task, labels=tiny_task_model.LABELS[task])


def test_a_single_label(opened: Callable[[str], Classifier], tmp_path: Path):
    before = opened(SINGLE_LABEL)
    said = {name: before.predict(tmp_path / name).label for name in COLOURS}
    rows = [f"{name},{label}" for name, label in said.items()]
    images = read(tmp_path, SINGLE_LABEL, "path,label", [*rows, "missing.png,normal"])
    same = compare(before, before, images)
    assert (same.before, same.after, same.images) == ({"right": 1.0}, {"right": 1.0}, 3)
    assert same.mended == same.broken == []
    with pytest.raises(DatasetError, match="none of the 1 images"):
        compare(before, before, images.subset([3]))

    after = opened(SINGLE_LABEL)
    object.__setattr__(after.spec, "thresholds", {"pneumonia": 0.0})  # says pneumonia of everything
    other = compare(before, after, images)
    normal = [name for name, label in said.items() if label == "normal"]
    assert normal
    assert (other.broken, other.mended) == (normal, [])
    assert other.after == {"right": pytest.approx(1 - len(normal) / 3)}
    assert compare(after, before, images).mended == normal


def test_several_labels_and_values(opened: Callable[[str], Classifier], tmp_path: Path):
    multi = opened(MULTI_LABEL)
    said = set(multi.predict(tmp_path / "red.png").decisions)
    wrong = ";".join(said ^ {"red"})  # one label of four is another
    images = read(tmp_path, MULTI_LABEL, "path,label", [f"red.png,{wrong}"])
    assert compare(multi, multi, images).before == {"right labels": 0.75}

    values = opened(REGRESSION)
    age, weight = values.predict(tmp_path / "red.png").values.values()
    images = read(tmp_path, REGRESSION, "path,age,weight", [f"red.png,{age + 2},{weight - 3}"])
    figures = compare(values, values, images).before
    assert figures == pytest.approx({"mean absolute error, age": 2, "mean absolute error, weight": 3}, rel=1e-5)


def test_the_test_side_judges_where_there_is_one(tmp_path: Path):
    rows = ["a.png,normal,train", "b.png,normal,val", "c.png,normal,test"]
    images = read(tmp_path, SINGLE_LABEL, "path,label,split", rows)
    assert [file.name for file in held_out(images).files] == ["c.png"]
    assert [file.name for file in held_out(images.subset([0, 1])).files] == ["b.png"]
