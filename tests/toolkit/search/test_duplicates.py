"""Which images count as the same, or nearly."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clip_search import SearchIndex, indexing
from clip_search.results import duplicates as module
from clip_search.results.duplicates import Groups, near_pairs
from clip_search.store.database import Database, Row
from clip_toolkit import Classifier
from clip_toolkit.errors import ImageError


@pytest.fixture
def photos(tmp_path: Path, pixels: NDArray[np.uint8]) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    original = Image.fromarray(pixels)
    original.save(folder / "original.png")
    shutil.copy(folder / "original.png", folder / "copy.png")
    original.save(folder / "saved again.jpg", quality=80)
    Image.fromarray(255 - pixels).save(folder / "negative.png")
    (folder / "bad.png").write_bytes(b"junk")
    (folder / "worse.png").write_bytes(b"junk")
    return folder


@pytest.fixture
def index(tmp_path: Path, photos: Path, classifier: Classifier) -> Iterator[SearchIndex]:
    with SearchIndex.open(tmp_path / "index", classifier, create=True) as opened:
        opened.update(photos)
        yield opened


def test_copies_and_near_copies_are_one_group(index: SearchIndex):
    [group] = index.duplicates()
    found = {item.path.name: item.kind for item in group}
    assert found == {"copy.png": "exact", "original.png": "exact", "saved again.jpg": "near"}
    assert [item.score for item in group][:2] == [1, 1]
    assert 0.995 <= group[2].score <= 1


def test_a_threshold_of_one_is_for_equal_files(index: SearchIndex):
    [group] = index.duplicates(1)
    assert [item.path.name for item in group] == ["copy.png", "original.png"]


def test_a_copy_that_could_not_be_decoded_is_none(index: SearchIndex, photos: Path, monkeypatch: pytest.MonkeyPatch):
    """As of a content that Pillow read before it was upgraded."""
    monkeypatch.setattr(Database, "embedding_of", lambda *_: None)
    monkeypatch.setattr(
        indexing, "embedded_many", lambda _, images, *_more: (ImageError("damaged") for _path in images)
    )
    shutil.copy(photos / "original.png", photos / "failed.png")
    assert index.update().failed == 1
    [group] = index.duplicates(1)
    assert [item.path.name for item in group] == ["copy.png", "original.png"]


def test_copies_that_another_process_added_meanwhile(
    index: SearchIndex, photos: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
):
    copies = Database.copies

    def with_more(database: Database) -> Iterator[Row]:
        shutil.copy(photos / "original.png", photos / "another.png")
        shutil.copy(photos / "negative.png", photos / "copied negative.png")
        monkeypatch.undo()
        with SearchIndex.open(index.folder, classifier) as other:
            other.update()
        return copies(database)

    monkeypatch.setattr(Database, "copies", with_more)
    [group] = index.duplicates(1)
    assert [item.path.name for item in group] == ["copy.png", "original.png"]
    assert len(index.duplicates(1)) == 2


def test_a_low_threshold_takes_all_that_are_images(index: SearchIndex):
    [group] = index.duplicates(-1)
    assert len(group) == 4


def test_pairs_are_those_of_all_products(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_BLOCK", 7)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 4))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    found = {
        (one, other)
        for first, second, _ in near_pairs(vectors, 0.6)
        for one, other in zip(first.tolist(), second.tolist(), strict=True)
    }
    products = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    assert found == {(i, j) for i in range(40) for j in range(i + 1, 40) if products[i, j] >= 0.6}
    assert found


def test_chains_make_one_group():
    groups = Groups(7)
    for one, other in ((5, 6), (1, 3), (6, 1), (2, 4)):
        groups.join(one, other)
    assert groups.of_many() == [[1, 3, 5, 6], [2, 4]]
