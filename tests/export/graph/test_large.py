"""Encoders that one file does not hold in float32: what is made of them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import clip_toolkit
from clip_export.encoders.image import Encoder
from clip_export.exporting import ExportOptions, export_classifier
from clip_export.graph import large
from clip_export.heads.files import TrainedHead
from clip_export.quantization.quantizing import QuantizationOptions
from clip_export.quantization.targets import find_target
from clip_toolkit.errors import EncoderError, ModelError

Export = Callable[[str | None], Path]


@pytest.fixture
def export(
    encoder: Callable[..., Encoder],
    head_for: Callable[[Encoder], TrainedHead],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Export:
    """Export the tiny CLIP, of 270 kB in float32, where a file holds 200; its random head may decide as it likes."""
    monkeypatch.setattr(large, "_LARGEST", 200_000)

    def run(mode: str | None) -> Path:
        path = tmp_path / "model.onnx"
        asked = QuantizationOptions(mode, find_target("auto"), min_agreement=0.0) if mode else None
        export_classifier(head_for(encoder("clip")), encoder("clip"), path, options=ExportOptions(quantization=asked))
        return path

    return run


@pytest.mark.parametrize(("mode", "share"), [("fp16", 0.5), ("int8", 0.25)])
def test_the_float_file_is_proved_and_quantized(export: Export, mode: str, share: float):
    path = export(mode)
    assert [*path.parent.iterdir()] == [path]
    classifier = clip_toolkit.load(path)
    assert all(drift.passed for drift in clip_toolkit.selftest(classifier))
    spec = classifier.spec
    assert 0 < spec.parity.pillow.logits <= 1e-5 * spec.parity.logit_scale
    assert share < spec.quantization.size_ratio < 2 * share  # of so small a file the metadata are a good part
    assert spec.quantization.largest_shift < 0.02


def test_a_refusal_names_what_fits(export: Export, tmp_path: Path):
    with pytest.raises(
        EncoderError, match=r"in float32, .* holds 2 GiB\. Use clip-export --quantize fp16 or int8 or int4"
    ):
        export(None)
    assert not [*tmp_path.iterdir()]


def test_nor_does_one_that_is_too_large_in_every_form(export: Export, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(large, "_LARGEST", 20_000)
    with pytest.raises(EncoderError, match=r"in int8, .*\. Use a smaller encoder\."):
        export("int8")


def test_the_runtime_refuses_weights_in_another_file(
    exported: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model, path = onnx.load(exported("clip")), tmp_path / "model.onnx"
    monkeypatch.setattr(large, "_LARGEST", 200_000)
    large.save_own(model, clip_toolkit.load(exported("clip")).spec, path)
    assert large.own_size(path) == pytest.approx(exported("clip").stat().st_size, rel=0.05)
    with pytest.raises(ModelError, match="weights in other files"):
        clip_toolkit.load(path)
    for ours, theirs in zip(onnx.load(path).graph.initializer, model.graph.initializer, strict=True):
        assert np.array_equal(numpy_helper.to_array(ours), numpy_helper.to_array(theirs))
