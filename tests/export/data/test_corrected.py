"""Corrections join the data they belong to: on the side of their image, or to learn from."""

import csv
import hashlib
from pathlib import Path

import pytest

from clip_export.data.corrected import write_corrected
from clip_toolkit.data.image_folder import read_image_folder
from clip_toolkit.data.manifest import read_manifest
from clip_toolkit.errors import DatasetError
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def none(_sha256: str) -> bool:
    return False


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label in ("ant", "bee"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "photos" / label / f"{number}.jpg").write_text(f"{label} {number}", encoding="utf-8")
    return tmp_path / "photos"


def corrections(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    return path


def rows(path: Path) -> dict[str, tuple[str, ...]]:
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert all(Path(row["path"]).is_file() for row in found)
    return {"/".join(Path(row.pop("path")).parts[-2:]): tuple(row.values()) for row in found}


def test_a_correction_keeps_the_side_of_its_image_and_new_ones_are_learnt(photos: Path, tmp_path: Path):
    manifest = corrections(tmp_path / "kept", "path,label\nnew.jpg,bee\nsame.jpg,bee\nheld.jpg,ant\n")
    (tmp_path / "kept" / "new.jpg").write_text("new", encoding="utf-8")
    (tmp_path / "kept" / "same.jpg").write_text("ant 0", encoding="utf-8")
    (tmp_path / "kept" / "held.jpg").write_text("bee 2", encoding="utf-8")
    held_out = frozenset(digest(photos / name) for name in ("ant/2.jpg", "bee/2.jpg"))
    output = tmp_path / "kept" / "training.csv"
    write_corrected(read_image_folder(photos), manifest, held_out.__contains__, output)
    assert rows(output) == {
        "ant/0.jpg": ("bee", "train"),
        "ant/1.jpg": ("ant", "train"),
        "ant/2.jpg": ("ant", "val"),
        "bee/0.jpg": ("bee", "train"),
        "bee/1.jpg": ("bee", "train"),
        "bee/2.jpg": ("ant", "val"),
        "kept/new.jpg": ("bee", "train"),
    }
    assert read_manifest(output).labels == ("ant", "bee")


@pytest.mark.parametrize(
    ("task", "heading", "first", "second", "right"),
    [
        (MULTI_LABEL, "label", "ant;bee", "", "bee"),
        (REGRESSION, "age,weight", "1.0,2.5", "3.0,4.0", "7.0,8.0"),
    ],
)
def test_other_tasks_and_sides_of_the_data(
    task: str, heading: str, first: str, second: str, right: str, photos: Path, tmp_path: Path
):
    data = photos / "data.csv"
    data.write_text(f"path,{heading},split\nant/0.jpg,{first},test\nant/1.jpg,{second},\n", encoding="utf-8")
    manifest = corrections(tmp_path / "kept", f"path,{heading}\nnew.jpg,{right}\n")
    (tmp_path / "kept" / "new.jpg").write_text("new", encoding="utf-8")
    output = tmp_path / "kept" / "training.csv"
    write_corrected(read_manifest(data, task), manifest, none, output)
    assert rows(output) == {
        "ant/0.jpg": (*first.split(","), "test"),
        "ant/1.jpg": (*second.split(","), "train"),
        "kept/new.jpg": (*right.split(","), "train"),
    }


def test_what_cannot_be_judged_or_is_unknown_is_refused(photos: Path, tmp_path: Path):
    dataset, output = read_image_folder(photos), tmp_path / "kept" / "training.csv"
    manifest = corrections(tmp_path / "kept", "path,label\nnew.jpg,bee\n")
    (tmp_path / "kept" / "new.jpg").write_text("new", encoding="utf-8")
    with pytest.raises(DatasetError, match="no image that the head was judged by"):
        write_corrected(dataset, manifest, none, output)
    manifest = corrections(tmp_path / "kept", "path,label\nnew.jpg,wasp\n")
    with pytest.raises(DatasetError, match="line 2: the training data have no label 'wasp'"):
        write_corrected(dataset, manifest, none, output)
    manifest = corrections(tmp_path / "kept", "path,label\ngone.jpg,bee\n")
    with pytest.raises(DatasetError, match=r"line 2: .*gone\.jpg cannot be read"):
        write_corrected(dataset, manifest, none, output)
    assert not output.exists()
