"""Folder in, head out: reading data sets, computing features, training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clip_export.encoder import Encoder
from clip_export.features import image_features
from clip_export.image_folder import read_image_folder, require_every_class, stratified_split
from clip_export.training import Examples, TrainingOptions, accuracy, train_head
from clip_toolkit.errors import DatasetError

EncoderOf = Callable[..., Encoder]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, dark and light, one image nested, one rotated by EXIF, one hidden file."""
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 160)):
        for number in range(6):
            path = tmp_path / "data" / name / ("more" if number == 5 else "") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(low, low + 90, (40, 50, 3), dtype=np.uint8)).save(path)
    (tmp_path / "data" / "dark" / ".DS_Store").write_bytes(b"junk")
    return tmp_path / "data"


def test_reads_classes_and_files_in_order(folder: Path):
    data = read_image_folder(folder)
    assert data.classes == ("dark", "light")
    assert data.targets == (0,) * 6 + (1,) * 6
    assert [path.name for path in data.files[:6]] == [f"{number}.png" for number in range(6)]


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


def test_split_is_stratified_seeded_and_disjoint():
    targets = [0] * 40 + [1] * 10
    train, validation = stratified_split(targets, 0.2, seed=1)
    assert sorted(train + validation) == list(range(50))
    assert [sum(targets[i] == k for i in validation) for k in (0, 1)] == [8, 2]
    assert stratified_split(targets, 0.2, seed=1) == (train, validation)
    assert stratified_split(targets, 0.2, seed=2) != (train, validation)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_split_fraction_out_of_range(fraction: float):
    with pytest.raises(DatasetError, match="fraction"):
        stratified_split([0, 0, 1, 1], fraction, seed=0)


def test_each_side_gets_one_of_every_class():
    train, validation = stratified_split([0, 0, 1, 1], 0.01, seed=0)
    assert len(train) == len(validation) == 2
    with pytest.raises(DatasetError, match="class b: expected at least 2"):
        require_every_class(("a", "b"), [0, 0, 1])


def test_features_are_the_encoders_and_bad_files_are_named(encoder: EncoderOf, folder: Path):
    used = encoder("clip")
    (folder / "dark" / "2.png").write_bytes(b"not an image")
    data = read_image_folder(folder)
    steps: list[int] = []
    features = image_features(used, data.files, batch_size=4, progress=steps.append)
    assert sum(steps) == len(data.files)
    assert features.kept == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    (error,) = features.errors
    assert str(folder / "dark" / "2.png") in str(error)
    values = used.processor(images=[Image.open(data.files[3])], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(features.values[2:3], used.features(values), atol=1e-5, rtol=1e-4)


def test_no_readable_file_gives_no_features(encoder: EncoderOf, tmp_path: Path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    features = image_features(encoder("clip"), [bad])
    assert features.values.shape == (0, 48)
    assert len(features.errors) == 1


def blobs(count: int, seed: int) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 3
    return Examples(torch.randn(count, 10, generator=generator) + 3 * torch.eye(3, 10)[targets], targets)


OPTIONS = TrainingOptions(epochs=30, learning_rate=1e-2, hidden_dim=16, seed=5)


def test_training_learns_and_reports_what_it_learnt():
    reported: list[float] = []
    head, last = train_head(blobs(150, 0), blobs(60, 1), 3, OPTIONS, lambda epoch: reported.append(epoch.loss))
    assert len(reported) == 30
    assert reported[-1] < reported[0] / 3
    assert last.val_accuracy == accuracy(head, blobs(60, 1)) > 0.9
    assert not head.training


def test_the_seed_decides_everything_and_leaves_the_callers_generator_alone():
    torch.manual_seed(1)
    first, _ = train_head(blobs(60, 0), blobs(30, 1), 3, OPTIONS)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    second, _ = train_head(blobs(60, 0), blobs(30, 1), 3, OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_validation_examples_do_not_influence_the_head():
    first, _ = train_head(blobs(60, 0), blobs(30, 1), 3, OPTIONS)
    second, _ = train_head(blobs(60, 0), blobs(90, 2), 3, OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_exploding_loss_is_named():
    wild = Examples(blobs(60, 0).features * 1e30, blobs(60, 0).targets)
    with pytest.raises(DatasetError, match="Lower the learning rate"):
        train_head(wild, wild, 3, TrainingOptions(epochs=5, learning_rate=1e30))


def test_nothing_to_learn_from():
    with pytest.raises(DatasetError, match="no examples"):
        train_head(Examples(torch.empty(0, 10), torch.empty(0, dtype=torch.long)), blobs(30, 1), 3, OPTIONS)
