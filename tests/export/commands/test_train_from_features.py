"""``clip-export --encoder-only``, ``clip-scale features`` and ``clip-train FEATURES``, one after the other."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_export.commands.export_options import parse_args as parse_export_args
from clip_export.commands.train import main as train
from clip_export.commands.train_options import parse_args
from clip_export.encoders.image import Encoder
from clip_export.heads.files import load_head
from clip_export.heads.tuned_encoder import referenced_encoder
from clip_scale.commands.scale import main as scale
from clip_toolkit import load
from clip_toolkit.commands.infer import main as infer
from clip_toolkit.spec.classifier import NO_HEAD
from clip_toolkit.stream.feature_table import FeatureRow, FeatureSource, write_features
from commands_in_process import run

pytest.importorskip("pyarrow", reason="needs the parquet extra")


@pytest.fixture(scope="module")
def told(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the encoder's file, sixteen images, and the features of those."""
    folder, rng = tmp_path_factory.mktemp("told"), np.random.default_rng(5)
    for number in range(16):
        path = folder / "photos" / ("dark" if number % 2 else "light") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        low = 0 if number % 2 else 120
        Image.fromarray(rng.integers(low, low + 136, (40, 40, 3), np.uint8)).save(path)
    done = run("clip-export", "--encoder-only", "--encoder", checkpoint("clip"), cwd=folder)
    assert done.returncode == 0, done.stderr
    options = ["--model", str(folder / "encoder.onnx"), "--workers", "1", "--quiet"]
    assert scale(["features", str(folder / "photos"), str(folder / "features.parquet"), *options]) == 0
    return folder


def test_the_file_of_an_encoder_is_proved_and_says_what_it_is(told: Path, capsys: pytest.CaptureFixture[str]):
    spec = load(told / "encoder.onnx").spec
    assert spec.head.source == NO_HEAD
    assert spec.parity is not None
    assert infer(["--describe", str(told / "encoder.onnx")]) == 0
    assert "none: an encoder alone" in capsys.readouterr().out
    assert infer(["--selftest", str(told / "encoder.onnx")]) == 0


def test_a_head_from_features_is_that_of_the_images_within_rounding(told: Path, checkpoint: Callable[[str], Path]):
    fixed = ("--encoder", checkpoint("clip"), "--lr", "1e-2", "--epochs", 20, "--novelty", "0.4")
    for data, head in ((told / "features.parquet", "remote.pt"), (told / "photos", "local.pt")):
        done = run("clip-train", data, *fixed, "-o", head, cwd=told)
        assert done.returncode == 0, done.stderr
    remote, local = (load_head(told / name) for name in ("remote.pt", "local.pt"))
    assert (remote.encoder, remote.labels, remote.data) == (local.encoder, local.labels, None)
    for ours, theirs in zip(*(head.module.state_dict().values() for head in (remote, local)), strict=True):
        assert (ours - theirs).abs().max() < 1e-3 * theirs.abs().max()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--encoder", "siglip"), "Name the encoder that they were computed by"),
        (("--encoder", "clip", "--feature", "projected"), "has pooled features. Leave out --feature projected"),
    ],
)
def test_features_of_another_encoder(
    options: tuple[str, ...], said: str, told: Path, checkpoint: Callable[[str], Path], tmp_path: Path
):
    named = [str(checkpoint(word)) if word in ("clip", "siglip") else word for word in options]
    done = run("clip-train", told / "features.parquet", *named, cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert not (tmp_path / "head.pt").exists()


def features_at(encoder: Encoder, path: Path) -> Path:
    """Write random features of eight images, as an encoder would."""
    rng = np.random.default_rng(1)
    rows = [FeatureRow(f"{n}.png", "ab"[n % 2], "", "", f"{n:064}", None) for n in range(8)]
    with path.open("wb") as file:
        features = [rng.normal(size=encoder.dim).astype(np.float32) for _ in rows]
        write_features(rows, features, FeatureSource(encoder.spec(), encoder.preprocessing), file)
    return path


@pytest.mark.parametrize("size", [32, 24])
def test_a_head_remembers_at_which_input_size_its_features_were_made(
    size: int, checkpoint: Callable[[str], Path], tmp_path: Path
):
    used = Encoder.from_pretrained(str(checkpoint("clip")), input_size=size)
    data, head = features_at(used, tmp_path / "features.parquet"), tmp_path / "head.pt"
    assert train([str(data), "--encoder", used.id, "--epochs", "1", "-o", str(head)]) == 0
    reference = load_head(head).encoder
    assert reference.input_size == used.input_size
    assert referenced_encoder(head, reference).preprocessing == used.preprocessing


def test_features_of_images_that_were_prepared_otherwise(
    encoder: Callable[..., Encoder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    used = encoder("clip")
    other = replace(used, preprocessing=replace(used.preprocessing, resample="bilinear"))
    data = features_at(other, tmp_path / "features.parquet")
    assert train([str(data), "--encoder", used.id, "-o", str(tmp_path / "head.pt")]) == 1
    assert "does not prepare images as they were" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--report", "pages"), ("--augment", "2"), ("--unfreeze", "1")])
def test_what_needs_images(options: tuple[str, ...], told: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        parse_args([str(told / "features.parquet"), "--encoder", "x", *options])
    assert f"{options[0]} needs images or their encoder" in capsys.readouterr().err


def test_an_encoder_alone_is_not_quantized(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        parse_export_args(["--encoder-only", "--encoder", "x", "--quantize", "int8"])
    assert "--quantize does not go with --encoder-only" in capsys.readouterr().err
