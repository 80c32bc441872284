"""Features from Parquet: the head of the images themselves, bit for bit, and refusals."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clip_export.encoders.image import Encoder
from clip_export.features.images import image_features
from clip_export.features.table import FeatureTable
from clip_export.progress import bar
from clip_export.training.feature_preparation import prepare_features
from clip_export.training.loop import train_head
from clip_export.training.options import DataOptions, TrainingOptions
from clip_export.training.preparation import prepare, read_dataset
from clip_toolkit.errors import DatasetError, OutputError
from clip_toolkit.spec.classifier import EncoderSpec, Preprocessing
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from clip_toolkit.stream.feature_table import FeatureRow, FeatureSource, write_features

pa = pytest.importorskip("pyarrow", reason="needs the parquet extra")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")

SOURCE = FeatureSource(
    EncoderSpec("tiny", "1" * 40, "clip", "pooled", 2),
    Preprocessing("squash", 4, 4, "bicubic", (0.0,) * 3, (1.0,) * 3),
)


def save(path: Path, *rows: tuple[str, str, list[float] | None], source: FeatureSource = SOURCE) -> Path:
    """Write rows of name, label and feature; without a feature there is an error."""
    told = [
        FeatureRow(name, label, "", "", hashlib.sha256(name.encode()).hexdigest(), None if feature else f"{name}: bad")
        for name, label, feature in rows
    ]
    with path.open("wb") as file:
        write_features(told, [feature and np.float32(feature) for _, _, feature in rows], source, file)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, light and dark, one of it twice and one damaged."""
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(3)
    for number in range(24):
        label = "dark" if number % 2 else "light"
        (folder / label).mkdir(exist_ok=True)
        low = 0 if number % 2 else 120
        Image.fromarray(rng.integers(low, low + 136, (40, 40, 3), np.uint8)).save(folder / label / f"{number:02}.png")
    (folder / "dark/copy.png").write_bytes((folder / "dark/01.png").read_bytes())
    (folder / "dark/bad.png").write_bytes(b"junk")
    return folder


def test_the_head_is_that_of_the_images_bit_for_bit(photos: Path, encoder: Callable[..., Encoder], tmp_path: Path):
    used, options = encoder("clip"), DataOptions(test_fraction=0.2)
    local = prepare(dataset := read_dataset(photos, options), used, options, None, bar)
    found = image_features(used, dataset.files)
    vectors = dict(zip(found.kept, found.values.tolist(), strict=True))
    rows = [(str(file), file.parent.name, vectors.get(index)) for index, file in enumerate(dataset.files)]
    told = replace(SOURCE, encoder=used.spec())
    parts = [save(tmp_path / f"{number:02}.parquet", row, source=told) for number, row in enumerate(rows)]
    contents = {str(dataset.files[index]): content for index, content in zip(found.kept, found.contents, strict=True)}
    for part in parts:  # the hashes of the images, not those of their names
        table = pq.read_table(part)
        hashes = pa.array([contents.get(name, "") for name in table["path"].to_pylist()])
        pq.write_table(table.set_column(4, "sha256", hashes), part)
    remote = prepare_features(FeatureTable.read(tmp_path, SINGLE_LABEL), options, tmp_path)
    assert remote.split == local.split
    assert len(remote.reading.errors) == 1
    training = TrainingOptions(epochs=5, learning_rate=1e-2)
    heads = [train_head(each.train, each.validation, 2, training).head for each in (remote, local)]
    for ours, theirs in zip(*(head.state_dict().values() for head in heads), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(remote.held_out.examples.features, local.held_out.examples.features)
    assert remote.reference() is None


def test_features_come_in_the_order_asked_for(tmp_path: Path):
    save(tmp_path / "a.parquet", ("1", "x", [1, 2]), ("2", "y", None))
    save(tmp_path / "b.parquet", ("3", "y", [5, 6]), ("4", "x", [7, 8]))
    table = FeatureTable.read(tmp_path, SINGLE_LABEL)
    assert [str(file) for file in table.dataset.files] == ["1", "3", "4"]
    assert table.values([2, 0], tmp_path).tolist() == [[7, 8], [1, 2]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


def test_several_labels_are_apart_by_semicolons(tmp_path: Path):
    path = save(tmp_path / "a.parquet", ("1", "x;y", [1, 2]), ("2", "", [3, 4]))
    dataset = FeatureTable.read(path, MULTI_LABEL).dataset
    assert (dataset.labels, dataset.targets.tolist()) == (("x", "y"), [[1, 1], [0, 0]])


def other_encoder(path: Path) -> None:
    save(path / "b.parquet", ("3", "x", [1, 2]), source=replace(SOURCE, encoder=replace(SOURCE.encoder, id="other")))


def without(column: str) -> Callable[[Path], None]:
    def drop(path: Path) -> None:
        pq.write_table(pq.read_table(path / "a.parquet").drop_columns([column]), path / "a.parquet")

    return drop


def plain_metadata(path: Path) -> None:
    pq.write_table(pq.read_table(path / "a.parquet").replace_schema_metadata({}), path / "a.parquet")


def first_feature(value: list[float | None] | None) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        table = pq.read_table(path / "a.parquet")
        rows = pa.array([value, [1.0, 2.0]], table.schema.field("feature").type)
        pq.write_table(table.set_column(6, "feature", rows), path / "a.parquet")

    return spoil


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "mixed": (other_encoder, r"b\.parquet: has features of another encoder than .*tiny, pooled and other, pooled"),
    "no feature": (without("feature"), "expected a column 'feature' .* found none"),
    "no label": (without("label"), "expected a column 'label' .* found none"),
    "no encoder": (plain_metadata, "does not name the encoder"),
    "empty label": (lambda path: save(path / "b.parquet", ("3", " ", [1, 2])), "the label of 3 is missing"),
    "null": (first_feature(None), "a row without an error has no feature"),
    "no number": (first_feature([None, 1.0]), "a feature is not finite"),
    "infinite": (first_feature([float("inf"), 1.0]), "a feature is not finite"),
    "unfinished": (lambda path: (path / "_ledger").touch(), "is not finished.*--resume"),
    "damaged": (lambda path: (path / "b.parquet").write_bytes(b"junk"), r"b\.parquet: cannot be read as Parquet"),
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_would_teach_something_else_is_refused(spoil: str, tmp_path: Path):
    save(tmp_path / "a.parquet", ("1", "x", [1, 2]), ("2", "y", [3, 4]))
    change, said = SPOILT[spoil]
    change(tmp_path)
    with pytest.raises(DatasetError, match=said):
        FeatureTable.read(tmp_path, SINGLE_LABEL).values([0, 1], tmp_path)


def test_values_to_predict_are_not_in_features(tmp_path: Path):
    with pytest.raises(DatasetError, match="no values for --task regression"):
        FeatureTable.read(save(tmp_path / "a.parquet", ("1", "x", [1, 2])), REGRESSION)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    table = FeatureTable.read(save(tmp_path / "a.parquet", ("1", "x", [1, 2]), ("2", "y", [3, 4])), SINGLE_LABEL)
    monkeypatch.setattr("clip_export.features.table.os.posix_fallocate", full, raising=False)
    with pytest.raises(OutputError, match="no room for 2 features of 2 numbers"):
        table.values([0, 1], tmp_path)
