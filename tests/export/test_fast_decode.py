"""`clip-export --fast-decode`: JPEGs are scaled down while decoding where that decides as before, or not at all."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clip_export.commands.export import main as export
from clip_export.encoders.image import Encoder
from clip_export.fast_decode import judge_fast_decode, scaled_images
from clip_export.heads.files import TrainedHead, save_head
from clip_export.quantization.evidence.files import Wanted
from clip_export.quantization.evidence.images import judging_images
from clip_export.samples.pictures import picture
from clip_toolkit import load
from clip_toolkit.commands.infer import main as infer
from clip_toolkit.errors import ParityError
from clip_toolkit.spec.model_file import read_spec
from tiny_models import SIZE

LARGE = 6 * SIZE
"""Sides from which on a JPEG is scaled down."""


@pytest.fixture(scope="module")
def head(
    encoder: Callable[..., Encoder],
    head_for: Callable[[Encoder], TrainedHead],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    path = tmp_path_factory.mktemp("heads") / "head.pt"
    save_head(head_for(encoder("clip")), path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder of drawn pictures of a size, in a format."""

    @functools.cache
    def make(side: int, suffix: str, count: int = 20) -> Path:
        folder = tmp_path_factory.mktemp("images")
        for seed in range(count):
            picture(side, side + 9, seed).save(
                folder / f"{seed}{suffix}", **({"quality": 95} if suffix == ".jpg" else {})
            )
        return folder

    return make


def test_a_file_that_passed_decodes_fast_unless_told(
    head: Path, images: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model, folder = tmp_path / "model.onnx", images(LARGE, ".jpg")
    assert export(["--head", str(head), "-o", str(model), "--fast-decode", str(folder)]) == 0
    assert "fast decode" in capsys.readouterr().out
    receipt = read_spec(model).fast_decode
    assert (receipt.side, receipt.images, receipt.source) == (3 * SIZE, 20, folder.name)
    assert receipt.agreement >= receipt.min_agreement == 0.99
    assert receipt.flips == ()
    assert 0 < receipt.mean_shift <= receipt.largest_shift
    default, told, exact = load(model), load(model, fast_decode=True), load(model, fast_decode=False)
    image = folder / "0.jpg"
    assert not np.array_equal(default.pixels(image), exact.pixels(image))
    assert np.array_equal(default.pixels(image), told.pixels(image))
    moved = np.abs(default.predict(image).probabilities - exact.predict(image).probabilities).max()
    assert 0 < moved <= receipt.largest_shift + 1e-6
    assert infer(["--selftest", str(model)]) == 0


@pytest.mark.parametrize(("side", "suffix"), [(LARGE, ".png"), (LARGE - 1, ".jpg")])
def test_images_that_it_does_not_touch_prove_nothing(
    head: Path, images: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], side: int, suffix: str
):
    folder = images(side, suffix)
    assert export(["--head", str(head), "-o", str(tmp_path / "model.onnx"), "--fast-decode", str(folder)]) == 1
    assert f"at least 16 JPEGs of {LARGE} pixels a side or more" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_decisions_that_change_are_named(images: Callable[..., Path]):
    model = Path(__file__).parents[2] / "models" / "demo.onnx"
    spec = read_spec(model)
    wanted = Wanted(spec.labels, spec.preprocessing)
    found, source, unreadable = judging_images(images(2 * LARGE, ".jpg"), wanted, None)
    assert not unreadable
    options = scaled_images(found, source, spec.preprocessing, 0.99)
    wrong = replace(options, images=tuple((image, 255 - pixels) for image, pixels in options.images))
    with pytest.raises(ParityError, match=r"on [0-9.]+% of 20 images, less than 99\.00% \(.*\.jpg: "):
        judge_fast_decode(model, wrong)
    receipt, decisions = judge_fast_decode(model, replace(wrong, min_agreement=0.0))
    assert 1 - len(receipt.flips) / 20 == receipt.agreement < 1
    assert [flip for _, flip in decisions[""].flips] == [*receipt.flips]


def test_without_images_nothing_judges(head: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert export(["--head", str(head), "-o", str(tmp_path / "model.onnx"), "--fast-decode"]) == 1
    assert "Name a folder of typical images" in capsys.readouterr().err
