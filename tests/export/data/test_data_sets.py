"""Reading labelled data sets and splitting them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_export.data.groups import with_groups
from clip_export.data.splits import Split, duplicates_across, few_shots, split_dataset
from clip_toolkit.data.dataset import Dataset
from clip_toolkit.data.image_folder import read_image_folder
from clip_toolkit.errors import DatasetError
from clip_toolkit.spec.tasks import SINGLE_LABEL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of six, one file nested, one hidden."""
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 160)):
        for number in range(6):
            path = tmp_path / "data" / name / ("more" if number == 5 else "") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(low, low + 90, (40, 50, 3), dtype=np.uint8)).save(path)
    (tmp_path / "data" / "dark" / ".DS_Store").write_bytes(b"junk")
    return tmp_path / "data"


@pytest.fixture
def sided(tmp_path: Path) -> Callable[[str], Path]:
    """A folder of empty images, from a list such as ``train/a/1 val/a/2``."""

    def make(files: str) -> Path:
        for name in files.split():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{name}.png").touch()
        return tmp_path

    return make


def test_reads_classes_and_files_in_order(folder: Path):
    data = read_image_folder(folder)
    assert data.labels == ("dark", "light")
    assert data.targets.tolist() == [0] * 6 + [1] * 6
    assert [path.name for path in data.files[:6]] == [f"{number}.png" for number in range(6)]
    assert data.relative(5) == "dark/more/5.png"


def test_what_is_no_image_is_left_out_and_said(folder: Path, tmp_path: Path):
    for name in ("dark/.ipynb_checkpoints/0.png", "dark/README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "dark" / "linked").symlink_to(folder / "light")
    (folder / "dark" / "lost.png").symlink_to(tmp_path / "unmounted.png")
    (folder / "linked class").symlink_to(folder / "light")
    data = read_image_folder(folder)
    assert [data.relative(i) for i in range(7)] == [
        *(f"dark/{i}.png" for i in range(5)),
        "dark/lost.png",
        "dark/more/5.png",
    ]
    assert data.labels == ("dark", "light", "linked class")
    assert len(data.files) == 7 + 6 + 6
    said = "\n".join(data.left_out)
    assert "2 hidden" in said
    assert "1 links to folders, not followed" in said
    assert "README.md" in said
    assert len(read_image_folder(folder, all_files=True).files) == 20


def test_refuses_missing_single_and_empty_classes(folder: Path, tmp_path: Path):
    with pytest.raises(DatasetError, match="no such folder"):
        read_image_folder(tmp_path / "missing")
    with pytest.raises(DatasetError, match="found none"):
        read_image_folder(folder / "dark" / "more")
    (folder / "void").mkdir()
    with pytest.raises(DatasetError, match="no images in class void"):
        read_image_folder(folder)
    with pytest.raises(DatasetError, match=r"at least 2 .*only 'more'"):
        read_image_folder(folder / "dark")


def test_sides_that_are_there_are_kept(sided: Callable[[str], Path]):
    data = read_image_folder(sided("train/a/1 train/b/2 train/b/3 Validation/a/4 test/b/5"))
    sides = {
        path.stem: (data.labels[t], side) for path, t, side in zip(data.files, data.targets, data.sides, strict=True)
    }
    assert sides == {
        "1": ("a", "train"),
        "2": ("b", "train"),
        "3": ("b", "train"),
        "4": ("a", "val"),
        "5": ("b", "test"),
    }
    split = split_dataset(data, list("12345"))
    assert [sorted(data.files[i].stem for i in side) for side in split] == [["1", "2", "3"], ["4"], ["5"]]


def test_classes_called_train_are_classes(sided: Callable[[str], Path]):
    assert read_image_folder(sided("train/1 plane/2")).labels == ("plane", "train")


def test_a_class_only_in_val_is_refused(sided: Callable[[str], Path]):
    with pytest.raises(DatasetError, match=r"val.c: there is no class of this name"):
        read_image_folder(sided("train/a/1 train/b/2 val/a/3 val/c/4"))


def test_validation_is_taken_from_train_where_there_is_none(sided: Callable[[str], Path]):
    names = [f"train/{label}/{number}" for label in "ab" for number in range(10)]
    data = read_image_folder(sided(" ".join([*names, "test/a/x", "test/b/y"])))
    split = split_dataset(data, [str(i) for i in range(22)], 0.2)
    assert [len(side) for side in split] == [16, 4, 2]
    assert {data.files[i].parent.parent.name for i in split.validation} == {"train"}


def test_a_missing_manifest_is_no_missing_folder(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"data\.csv: there is no such file"):
        read_image_folder(tmp_path / "data.csv")


def made(targets: list[int], groups: list[str] | None = None) -> Dataset:
    count = len(targets)
    files = tuple(Path(f"/data/{number}.png") for number in range(count))
    labels = tuple("abcdefgh"[: max(targets) + 1])
    none = ("",) * count
    return Dataset(
        Path("/data"), Path("/data"), SINGLE_LABEL, labels, files, np.array(targets), none, tuple(groups or none)
    )


def contents(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def test_split_is_stratified_seeded_and_disjoint():
    data = made([0] * 40 + [1] * 10)
    split = split_dataset(data, contents(50), 0.2, 0.2, seed=1)
    assert sorted([*split.train, *split.validation, *split.test]) == list(range(50))
    for side in (split.validation, split.test):
        assert np.bincount(data.targets[side]).tolist() == [8, 2]
    assert split_dataset(data, contents(50), 0.2, 0.2, seed=1) == split
    assert split_dataset(data, contents(50), 0.2, 0.2, seed=2) != split


@pytest.mark.parametrize("fractions", [(0, 0), (1, 0), (-0.1, 0), (float("nan"), 0), (0.6, 0.4), (0.2, -0.1)])
def test_fractions_out_of_range(fractions: tuple[float, float]):
    with pytest.raises(DatasetError, match="fractions"):
        split_dataset(made([0, 0, 1, 1]), contents(4), *fractions)


def test_each_side_gets_one_of_every_class():
    split = split_dataset(made([0, 0, 1, 1]), contents(4), 0.01)
    assert (len(split.train), len(split.validation)) == (2, 2)
    with pytest.raises(DatasetError, match="class b: expected at least 2"):
        split_dataset(made([0, 0, 1]), contents(3))


@pytest.mark.parametrize("seed", range(5))
def test_a_patient_is_never_on_two_sides(seed: int):
    rng = np.random.default_rng(seed)
    patients = rng.integers(0, 30, 200)
    data = made((patients % 2).tolist(), [f"p{patient}" for patient in patients])
    split = split_dataset(data, contents(200), 0.2, 0.2, seed)
    sides = [{data.groups[index] for index in side} for side in split]
    assert sum(map(len, sides)) == len(set.union(*sides))
    for side in (split.validation, split.test):
        assert 0.12 < len(side) / 200 < 0.28
        assert 0.3 < data.targets[side].mean() < 0.7


def test_equal_files_stay_together_and_are_found_where_the_sides_are_given():
    data = made([0] * 10 + [1] * 10)
    same = contents(20)
    same[:4] = ["same"] * 4
    split = split_dataset(data, same)
    assert sum(bool(set(side) & set(range(4))) for side in split) == 1
    assert duplicates_across(split, same) == []
    assert duplicates_across(Split([0, 5], [1, 6], [2]), same) == [(0, 1), (0, 2)]


def test_groups_that_leave_a_side_empty_are_refused():
    with pytest.raises(DatasetError, match="groups"):
        split_dataset(made([0, 0, 1, 1], ["one"] * 4), contents(4))


def test_a_group_on_both_given_sides_is_refused(sided: Callable[[str], Path]):
    data = with_groups(read_image_folder(sided("train/a/p1_1 train/b/p2_1 val/a/p1_2 val/b/p3_1")), r"p(\d)")
    with pytest.raises(DatasetError, match="the group '1' is on both sides"):
        split_dataset(data, contents(4))


def test_groups_by_pattern_and_by_file(folder: Path, tmp_path: Path):
    data = read_image_folder(folder)
    assert with_groups(data, r"(\d)\.png$").groups[:6] == tuple("012345")
    with pytest.raises(DatasetError, match=r"not found in 12 of 12 paths, such as dark/0\.png"):
        with_groups(data, "patient")
    with pytest.raises(DatasetError, match="neither a CSV file nor a regular expression"):
        with_groups(data, "(")
    table = tmp_path / "groups.csv"
    lines = [f"{data.relative(index)},g{index % 3}" for index in range(12)]
    table.write_text("\n".join(["path,group", *lines]), encoding="utf-8")
    assert with_groups(data, str(table)).groups[:4] == ("g0", "g1", "g2", "g0")
    table.write_text("\n".join(["path,group", *lines[1:]]), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"no group for 1 of 12 files, such as dark/0\.png"):
        with_groups(data, str(table))
    table.write_text("file,patient\na,b\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="expected a column 'path', found file, patient"):
        with_groups(data, str(table))


def test_shots_are_so_many_of_each_label():
    data = made([0] * 10 + [1] * 3)
    chosen = few_shots(data, range(13), 4, seed=0)
    assert np.bincount(data.targets[chosen]).tolist() == [4, 3]
    assert few_shots(data, range(13), 4, seed=0) == chosen
