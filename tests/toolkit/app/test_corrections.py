"""Corrections become a manifest that clip-train reads: one row an image, the latest answer."""

import csv
import hashlib
from pathlib import Path

import pytest
import tiny_task_model
from tiny_fused_model import png

from clip_app.corrections import Corrections
from clip_toolkit.errors import ClipToolkitError, DatasetError, OutputError
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "Photo 1.PNG"
    path.write_bytes(png((200, 30, 40)))
    return path


def of_task(task: str, folder: Path) -> Corrections:
    return Corrections(folder, tiny_task_model.spec(task))


def rows(corrections: Corrections) -> list[dict[str, str]]:
    with corrections.manifest.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_latest_answer_stands_in_one_row(image: Path, tmp_path: Path):
    corrections = of_task(SINGLE_LABEL, tmp_path / "kept")
    assert not corrections.manifest.parent.exists()
    assert corrections.add(image, ["normal"]) == 1
    renamed = image.rename(tmp_path / "other.jpg")
    assert corrections.add(renamed, ["pneumonia"]) == 1
    name = f"{hashlib.sha256(renamed.read_bytes()).hexdigest()}.png"
    assert rows(corrections) == [{"path": name, "label": "pneumonia"}]
    assert (tmp_path / "kept" / name).read_bytes() == renamed.read_bytes()
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == sorted([name, "manifest.csv"])


def test_rows_and_columns_of_others_stay(image: Path, tmp_path: Path):
    corrections = of_task(SINGLE_LABEL, tmp_path)
    corrections.manifest.write_text("path,label,group\nmine.png,normal,p1\n", encoding="utf-8")
    assert corrections.add(image, ["pneumonia"]) == 2
    first, second = rows(corrections)
    assert first == {"path": "mine.png", "label": "normal", "group": "p1"}
    assert (second["label"], second["group"]) == ("pneumonia", "")


@pytest.mark.parametrize(
    ("task", "answer", "cells"),
    [
        (MULTI_LABEL, ["red", "2"], {"label": "red;2"}),
        (MULTI_LABEL, [], {"label": ""}),
        (REGRESSION, [41.5, 70], {"age": "41.5", "weight": "70.0"}),
    ],
)
def test_answers_of_other_tasks(
    task: str, answer: list[str | float], cells: dict[str, str], image: Path, tmp_path: Path
):
    corrections = of_task(task, tmp_path)
    corrections.add(image, answer)
    [row] = rows(corrections)
    assert row.items() >= cells.items()


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        (SINGLE_LABEL, ["cat"]),
        (SINGLE_LABEL, []),
        (SINGLE_LABEL, ["normal", "pneumonia"]),
        (MULTI_LABEL, ["red", "cat"]),
        (REGRESSION, [41.5, None]),
        (REGRESSION, [41.5, float("nan")]),
    ],
)
def test_what_the_model_could_not_say_is_refused(task: str, answer: list[str], image: Path, tmp_path: Path):
    corrections = of_task(task, tmp_path / "kept")
    with pytest.raises(ClipToolkitError, match=r"^correction: "):
        corrections.add(image, answer)
    assert not (tmp_path / "kept").exists()


def test_a_manifest_of_another_task_is_refused_and_stays(image: Path, tmp_path: Path):
    corrections = of_task(REGRESSION, tmp_path)
    corrections.manifest.write_text("path,label\nmine.png,normal\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="expected a column 'age'"):
        corrections.add(image, [1.0, 2.0])
    assert corrections.manifest.read_text(encoding="utf-8") == "path,label\nmine.png,normal\n"


def test_a_folder_that_cannot_be_made_is_named(image: Path, tmp_path: Path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(OutputError, match=r"file: cannot be made .* --corrections"):
        of_task(SINGLE_LABEL, tmp_path / "file").add(image, ["normal"])
