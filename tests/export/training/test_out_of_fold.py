"""Probabilities by heads that did not learn from the image, and the report's list that comes of them."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clip_export.data.splits import Split
from clip_export.features.images import ReadFiles
from clip_export.training.epochs import Examples
from clip_export.training.judging.out_of_fold import out_of_fold
from clip_export.training.preparation import Prepared
from clip_export.training.report.mislabelled import find_suspects, mislabelled_section, write_suspects
from clip_toolkit.data.dataset import Dataset
from clip_toolkit.spec.tasks import SINGLE_LABEL

COUNT = 60


def clouds(seed: int = 0):
    """Features of three labels, and the labels."""
    rng = np.random.default_rng(seed)
    targets = np.arange(COUNT) % 3
    return (rng.normal(0, 0.3, (COUNT, 5)) + np.eye(5)[targets]).astype(np.float32), targets


def test_no_image_is_learnt_from_by_the_head_that_judges_it():
    features, targets = clouds()
    found = out_of_fold(features, targets, [""] * COUNT)
    assert found is not None
    np.testing.assert_allclose(found.sum(1), 1)
    assert (found.argmax(1) == targets).mean() > 0.9
    moved = features.copy()
    moved[7] += 100  # would move every head that learns from it, and not the one that judges it
    others = out_of_fold(moved, targets, [""] * COUNT)
    assert others is not None
    same = np.isclose(others, found).all(1)
    same[7] = False
    assert 5 <= same.sum() <= 15  # the others of its fold


def test_a_group_is_judged_by_heads_that_saw_none_of_it():
    features, targets = clouds()
    groups = [f"patient {row // 6}" for row in range(COUNT)]
    found = out_of_fold(features, targets, groups)
    moved = features.copy()
    moved[6:12] += 100
    others = out_of_fold(moved, targets, groups)
    assert found is not None
    assert others is not None
    changed = ~np.isclose(others, found).all(1)
    assert changed.any()
    folds = {group: {bool(changed[row]) for row in range(COUNT) if groups[row] == group} for group in set(groups)}
    assert sum(kinds == {False} for kinds in folds.values()) >= 1


def test_a_label_with_one_image_or_one_group_has_no_folds():
    features, targets = clouds()
    assert out_of_fold(features[:4], targets[:4], [""] * 4) is None
    assert out_of_fold(features, targets, [f"patient {label}" for label in targets]) is None


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """Images of three labels on three sides, one of each side with a wrong label."""
    features, targets = clouds()
    targets[[3, 40, 50]] = (targets[[3, 40, 50]] + 1) % 3
    files = tuple(tmp_path / f"{row:02}.png" for row in range(COUNT))
    for file in files:
        Image.new("RGB", (4, 4)).save(file)
    none = ("",) * COUNT
    dataset = Dataset(tmp_path, tmp_path, SINGLE_LABEL, ("a", "b", "c"), files, targets, none, none)
    split = Split([*range(36)], [*range(36, 48)], [*range(48, COUNT)])
    sides = [Examples(torch.from_numpy(features[rows]), torch.from_numpy(targets[rows])) for rows in split]
    return Prepared(dataset, split, *sides, ReadFiles([], [], [], 0, "cache"), ())


def test_the_report_lists_wrong_labels_of_every_side(prepared: Prepared, tmp_path: Path):
    suspects = find_suspects(prepared)
    assert suspects is not None
    assert {suspect.row for suspect in suspects} >= {3, 40, 50}
    assert len(suspects) < 10
    (section,) = mislabelled_section(suspects, prepared)
    assert f"All {len(suspects)}, the surest first" in section.note
    assert "40.png" in section.html
    assert list(mislabelled_section([], prepared)) == []
    write_suspects(tmp_path / "mislabelled.csv", suspects, prepared)
    rows = {row["path"]: row for row in csv.DictReader((tmp_path / "mislabelled.csv").read_text().splitlines())}
    assert (rows["40.png"]["label"], rows["40.png"]["probably"]) == ("c", "b")
