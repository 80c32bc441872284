"""``clip-search next``: which images to label."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_task_model
from tiny_fused_model import png

from clip_search import SearchIndex
from clip_search.commands.search import main
from clip_search.results.labelling import check_chooses, choose, margin
from clip_toolkit import Prediction, load
from clip_toolkit.errors import SearchIndexError
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

Capture = pytest.CaptureFixture[str]


def prediction(task: str, probabilities: list[float], thresholds: dict[str, float] | None = None) -> Prediction:
    values = np.array(probabilities, np.float32)
    labels = tuple("abcd"[: len(values)])
    return Prediction(labels, values, values, values, "CPUExecutionProvider", task, thresholds or {})


def test_the_margin_is_how_far_the_decision_is_from_another_one():
    assert margin(prediction(SINGLE_LABEL, [0.5, 0.125, 0.375])) == 0.125
    assert margin(prediction(SINGLE_LABEL, [1.0])) == 1
    assert margin(prediction(MULTI_LABEL, [0.875, 0.25, 0.75], {"b": 0.375})) == 0.125


def test_the_least_sure_comes_first_and_then_what_is_unlike_it():
    angles = np.array([0.0, 0.01, 1.5, 3.1, 3.0])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], 1)
    margins = np.array([0.2, 0.1, 0.3, 0.4, 0.5])
    assert choose(margins, embeddings, 3) == [1, 3, 2]
    assert sorted(choose(margins, embeddings, 9)) == [0, 1, 2, 3, 4]


def test_images_that_the_model_is_sure_of_are_not_chosen_for_being_unlike():
    margins = np.concatenate([np.linspace(0, 0.1, 25), [0.9]])
    embeddings = np.concatenate([np.tile([1.0, 0.0], (25, 1)), [[-1.0, 0.0]]])
    assert 25 not in choose(margins, embeddings, 2)
    assert 25 in choose(margins, embeddings, 3)  # the 26 of them are candidates


@pytest.fixture
def indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, and an index of pictures by it: reds that are much alike, and one of another colour."""
    monkeypatch.chdir(tmp_path)
    model, folder = tmp_path / "m.onnx", tmp_path / "photos"
    model.write_bytes(tiny_task_model.model(SINGLE_LABEL))
    folder.mkdir()
    for number in range(6):
        (folder / f"red{number}.png").write_bytes(png((200, 30 + number, 40)))
    (folder / "other.png").write_bytes(png((20, 120, 110)))
    assert main(["index", str(folder), "--model", str(model)]) == 0
    return model


def test_images_are_listed_with_how_sure_the_model_is(indexed: Path, capsys: Capture):
    assert main(["next", "--model", str(indexed), "--top-k", "2", "--format", "csv", "--html", "next.html"]) == 0
    first, second = csv.DictReader(io.StringIO(capsys.readouterr().out))
    found = {path.name: load(indexed, device="cpu").predict(path) for path in Path("photos").iterdir()}
    least = min(found, key=lambda name: margin(found[name]))
    assert Path(first["image"]).name == least
    assert "other.png" in (Path(first["image"]).name, Path(second["image"]).name)
    for row in (first, second):
        item = found[Path(row["image"]).name]
        assert (row["label"], float(row["margin"])) == (item.label, pytest.approx(margin(item)))
    assert "To label next" in Path("next.html").read_text()


def test_labelled_images_and_lost_ones_are_left_out(indexed: Path, capsys: Capture):
    Path("labelled.csv").write_text("path,label\nphotos/red0.png,normal\nphotos/other.png,normal\n")
    Path("photos/red1.png").unlink()
    assert main(["next", "--model", str(indexed), "--labelled", "labelled.csv", "--format", "json"]) == 0
    names = {Path(item["image"]).name for item in json.loads(capsys.readouterr().out)}
    assert names == {f"red{number}.png" for number in (2, 3, 4, 5)}
    assert main(["next", "--model", str(indexed), "--labelled", "missing.csv"]) == 1
    assert "missing.csv" in capsys.readouterr().err


@pytest.mark.usefixtures("indexed")
def test_models_that_are_never_unsure_are_refused():
    for spec, reason in (
        (tiny_task_model.spec(REGRESSION), "predicts numbers"),
        (tiny_task_model.spec_of_several(), "several heads"),
    ):
        with pytest.raises(SearchIndexError, match=reason):
            check_chooses(spec)
    with SearchIndex.open(".clip-search") as index, pytest.raises(ValueError, match="without a classifier"):
        index.next_to_label()
    check_chooses(tiny_task_model.spec(MULTI_LABEL))
