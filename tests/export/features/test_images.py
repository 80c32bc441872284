"""Features of image files, and their cache on disk."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_export.features import backends
from clip_export.features import rows as row_cache
from clip_export.features.augment import augmented
from clip_export.features.cache import FeatureCache, encoder_identity
from clip_export.features.images import Features, image_features
from clip_export.features.texts import tower_identity
from clip_export.graph import large
from clip_export.training.finetuning.halves import LowerHalf
from clip_export.training.finetuning.hidden_states import hidden_cache
from clip_toolkit.errors import DeviceError

CheckpointOf = Callable[[str], Path]
EncoderOf = Callable[..., Encoder]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Nine pictures: one is 16-bit grey, one is broken."""
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    paths = [tmp_path / "pictures" / f"{number}.png" for number in range(9)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    Image.fromarray(rng.integers(0, 65536, (40, 50), dtype=np.uint16)).save(paths[4])
    paths[2].write_bytes(b"not an image")
    return paths


def test_features_are_the_encoders_and_bad_files_are_named(encoder: EncoderOf, files: list[Path]):
    used = encoder("clip")
    steps: list[int] = []
    features = image_features(used, files, batch_size=4, progress=steps.append)
    assert sum(steps) == len(files)
    assert features.kept == [0, 1, 3, 4, 5, 6, 7, 8]
    (error,) = features.errors
    assert str(files[2]) in str(error)
    values = used.processor(images=[Image.open(files[3])], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(features.values[2:3], used.features(values), atol=1e-5, rtol=1e-4)


def test_16_bit_grey_is_scaled_and_not_clipped(encoder: EncoderOf, files: list[Path], tmp_path: Path):
    grey = np.asarray(Image.open(files[4])).astype(np.uint32)
    Image.fromarray(((grey + 128) // 257).astype(np.uint8)).save(tmp_path / "eight.png")
    features = image_features(encoder("clip"), [files[4], tmp_path / "eight.png"])
    assert torch.equal(features.values[0], features.values[1])


def test_no_readable_file_gives_no_features(encoder: EncoderOf, tmp_path: Path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    features = image_features(encoder("clip"), [bad, tmp_path / "missing.png"])
    assert features.values.shape == (0, 48)
    assert ["missing" in str(error) for error in features.errors] == [False, True]


@pytest.mark.parametrize("name", ["clip", "siglip", "blip"])
def test_onnx_runtime_gives_the_same_features(encoder: EncoderOf, files: list[Path], name: str):
    plain, other = (image_features(encoder(name), files, backend=b) for b in ("torch", "onnxruntime"))
    assert (plain.backend, other.backend) == ("PyTorch", "ONNX Runtime")
    torch.testing.assert_close(plain.values, other.values, atol=1e-4, rtol=1e-4)


def test_a_backend_that_disagrees_is_not_used(encoder: EncoderOf, files: list[Path], monkeypatch: pytest.MonkeyPatch):
    used = encoder("clip")
    monkeypatch.setattr(backends, "onnx_runner", lambda _: lambda pixels: np.ones((len(pixels), 48), np.float32))
    monkeypatch.setattr(backends, "WORTH_EXPORTING", 1)
    assert image_features(used, files).backend == "PyTorch"
    with pytest.raises(DeviceError, match="--backend torch"):
        image_features(used, files, backend="onnxruntime")


def test_an_encoder_too_large_for_one_graph_is_pytorchs(
    encoder: EncoderOf, files: list[Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(large, "_LARGEST", 200_000)
    monkeypatch.setattr(backends, "WORTH_EXPORTING", 0)
    assert image_features(encoder("clip"), files).backend == "PyTorch"
    with pytest.raises(DeviceError, match=r"one ONNX file holds 2 GiB.* --backend torch"):
        image_features(encoder("clip"), files, backend="onnxruntime")


def test_out_of_memory_suggests_a_batch_size(encoder: EncoderOf, files: list[Path], monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Encoder, "rows", full)
    with pytest.raises(DeviceError, match=r"out of memory with 6 images at a time. Try --batch-size 3\."):
        image_features(encoder("clip"), files, batch_size=6)


class Forbidden:
    """An encoder's method that must not be called."""

    def __call__(self, *_: object) -> torch.Tensor:
        raise AssertionError("the encoder ran")


def cached(encoder: Encoder, files: list[Path], folder: Path, **options: int) -> tuple[Features, FeatureCache]:
    cache = FeatureCache(folder, encoder)
    return image_features(encoder, files, batch_size=4, cache=cache, **options), cache


def test_the_second_run_does_not_touch_the_encoder(
    encoder: EncoderOf, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, _ = cached(encoder("clip"), files, tmp_path / "cache")
    monkeypatch.setattr(Encoder, "rows", Forbidden())
    moved = [Path(shutil.copy(file, tmp_path / f"moved-{file.name}")) for file in files]
    second, cache = cached(encoder("clip"), moved, tmp_path / "cache")
    assert (second.computed, second.backend, cache.notes) == (0, "cache", [])
    assert torch.equal(first.values, second.values)


def test_a_changed_file_is_computed_again(encoder: EncoderOf, files: list[Path], tmp_path: Path):
    cached(encoder("clip"), files, tmp_path / "cache")
    Image.new("RGB", (50, 40), "red").save(files[0])
    again, _ = cached(encoder("clip"), files, tmp_path / "cache")
    assert again.computed == 1


def test_another_encoder_or_feature_has_a_cache_of_its_own(encoder: EncoderOf, files: list[Path], tmp_path: Path):
    used = [encoder("clip"), encoder("clip-gelu"), encoder("clip", "projected"), encoder("clip-crop")]
    assert [cached(item, files, tmp_path / "cache")[0].computed for item in used] == [8, 8, 8, 8]
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_an_encoder_of_other_configuration_has_a_cache_of_its_own(checkpoint: CheckpointOf, tmp_path: Path):
    owners, folder = [], tmp_path / "clip"
    shutil.copytree(checkpoint("clip"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for change in ({}, {"hidden_act": "gelu_new"}, {"num_attention_heads": 1}, {"layer_norm_eps": 1e-3}, {}):
        changed = {part: {**config[part], **change} for part in ("vision_config", "text_config")}
        (folder / "config.json").write_text(json.dumps(config | changed), encoding="utf-8")
        encoder = Encoder.from_pretrained(str(folder))
        identities = (encoder_identity(encoder), tower_identity(TextEncoder.from_pretrained(str(folder))))
        hidden = hidden_cache(tmp_path, LowerHalf(encoder, 1)).folder.name
        owners.append((*(json.dumps(identity, sort_keys=True) for identity in identities), hidden))
    assert [len(set(kind)) for kind in zip(*owners, strict=True)] == [4, 4, 4]
    assert owners[0] == owners[-1]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty"])
def test_a_damaged_or_foreign_cache_is_rebuilt_and_said(
    encoder: EncoderOf, files: list[Path], tmp_path: Path, damage: str
):
    first, cache = cached(encoder("clip"), files, tmp_path / "cache")
    (shard,) = cache.folder.glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    if damage == "foreign":
        _, other = cached(encoder("clip-gelu"), files, tmp_path / "cache")
        content = bytearray(next(other.folder.glob("*.safetensors")).read_bytes())
    content[-5] ^= 255 if damage == "flipped" else 0
    kept = {"truncated": len(content) // 2, "empty": 0}.get(damage, len(content))
    shard.write_bytes(content[:kept])
    again, rebuilt = cached(encoder("clip"), files, tmp_path / "cache")
    assert again.computed == 8
    assert torch.equal(first.values, again.values)
    (note,) = rebuilt.notes
    assert "computed again" in note
    assert ("another encoder" if damage == "foreign" else "damaged") in note
    assert cached(encoder("clip"), files, tmp_path / "cache")[0].computed == 0


def test_a_shard_is_not_read_before_a_row_of_it_is_wanted(
    encoder: EncoderOf, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cached(encoder("clip"), files[:2], tmp_path / "cache")
    cached(encoder("clip"), files[3:6], tmp_path / "cache")
    summed: list[int] = []
    digest = row_cache._digest
    monkeypatch.setattr(row_cache, "_digest", lambda keys, rows: summed.append(len(rows)) or digest(keys, rows))
    cache = FeatureCache(tmp_path / "cache", encoder("clip"))
    assert summed == []
    for _ in range(2):
        assert image_features(encoder("clip"), files[3:6], cache=cache).computed == 0
    assert summed == [3]


def test_an_interrupted_run_keeps_what_it_had(encoder: EncoderOf, files: list[Path], tmp_path: Path):
    def interrupted(_: int, seen: list[int] = []) -> None:  # noqa: B006 (a counter)
        seen.append(1)
        if len(seen) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image_features(encoder("clip"), files, 2, progress=interrupted, cache=FeatureCache(tmp_path, encoder("clip")))
    assert 0 < cached(encoder("clip"), files, tmp_path)[0].computed < 8


def test_two_processes_may_write_at_once(encoder: EncoderOf, files: list[Path], tmp_path: Path):
    used = encoder("clip")
    caches = [FeatureCache(tmp_path, used), FeatureCache(tmp_path, used)]  # both opened before either writes
    for cache, half in zip(caches, (files[:6], files[3:]), strict=True):
        image_features(used, half, cache=cache)
    assert cached(used, files, tmp_path)[0].computed == 0


def test_a_full_disk_costs_the_cache_and_not_the_run(
    encoder: EncoderOf, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    features, cache = cached(encoder("clip"), files, tmp_path / "cache")
    assert features.computed == 8
    assert "No space left" in cache.notes[0]
    assert not list(cache.folder.iterdir())


def test_a_cache_that_cannot_be_made_costs_no_run(encoder: EncoderOf, files: list[Path], tmp_path: Path):
    (tmp_path / "file").touch()
    features, cache = cached(encoder("clip"), files, tmp_path / "file")
    assert features.computed == 8
    assert "cannot be used" in cache.notes[0]


def test_views_differ_from_each_other_and_are_the_same_each_time(encoder: EncoderOf, files: list[Path], tmp_path: Path):
    views = [cached(encoder("clip"), files, tmp_path / "cache", view=view)[0] for view in (0, 1, 2)]
    assert all(not torch.allclose(a.values, b.values) for a, b in pairwise(views))
    again, _ = cached(encoder("clip"), files, tmp_path / "cache", view=2)
    assert again.computed == 0
    assert torch.equal(again.values, views[2].values)
    with Image.open(files[0]) as image:
        assert augmented(image, b"0" * 32, 0) is image
    assert augmented(Image.new("RGB", (1, 1)), b"0" * 32, 1).size == (1, 1)
