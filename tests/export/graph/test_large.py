"""Encoders that one file does not hold in float32: what is made of them, and what is refused."""

from __future__ import annotations

import weakref
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
from clip_export.heads.no_head import no_head
from clip_export.quantization.evidence.feeds import Feeds
from clip_export.quantization.modes.fp16 import quantize_fp16
from clip_export.quantization.quantizing import QuantizationOptions
from clip_export.quantization.targets import find_target
from clip_toolkit.errors import EncoderError, ModelError, QuantizationError
from clip_toolkit.runtime.session import Session

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


def test_the_file_is_that_of_any_other_encoder(export: Export, monkeypatch: pytest.MonkeyPatch):
    graphs = [onnx.load(export("fp16")).graph]
    monkeypatch.setattr(large, "_LARGEST", 2**31)
    graphs.append(onnx.load(export("fp16")).graph)
    assert graphs[0] == graphs[1]


def test_no_more_than_two_networks_are_open_at_once(export: Export, monkeypatch: pytest.MonkeyPatch):
    """Each may take most of the memory: two while they are compared in speed, or one beside a resize."""
    opened, most, make = weakref.WeakSet(), [], Session.__init__

    def counted(self: Session, *arguments: object, **options: object) -> None:
        make(self, *arguments, **options)
        opened.add(self)
        most.append(len(opened))

    monkeypatch.setattr(Session, "__init__", counted)
    export("fp16")
    assert max(most) == 2


@pytest.mark.parametrize("is_large", [True, False])
def test_speeds_compare_weights_that_lie_alike(is_large: bool, export: Export, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def recorded(*files: Path, **options: bool) -> clip_toolkit.Classifier:
        asked.append(options.get("prepack", True))
        return clip_toolkit.load(*files, **options)

    monkeypatch.setattr(large, "load", recorded)
    monkeypatch.setattr(large, "_LARGEST", 200_000 if is_large else 2**31)
    export("fp16")
    assert asked[-1] is not is_large


def test_a_refusal_names_what_fits(export: Export, tmp_path: Path):
    with pytest.raises(
        EncoderError, match=r"in float32, .* holds 2 GiB\. Use clip-export --quantize fp16 or int8 or int4"
    ):
        export(None)
    assert not [*tmp_path.iterdir()]


def test_an_encoder_alone_is_not_advised_to_quantize(
    encoder: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(large, "_LARGEST", 200_000)
    with pytest.raises(EncoderError, match=r"holds 2 GiB\. Use a smaller encoder\."):
        export_classifier(no_head(encoder("clip").dim), encoder("clip"), tmp_path / "encoder.onnx")


def test_nor_does_one_that_is_too_large_in_every_form(export: Export, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(large, "_LARGEST", 20_000)
    with pytest.raises(EncoderError, match=r"in int8, .*\. Use a smaller encoder\."):
        export("int8")


@pytest.mark.parametrize(("mode", "limit"), [("int8", 70_000), ("int4", 80_000)])
def test_what_stays_in_float_counts(
    mode: str, limit: int, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The estimate before the graph takes all weights for integers, of which some stay as they are."""
    monkeypatch.setattr(large, "_LARGEST", limit)
    with pytest.raises(QuantizationError, match=rf"^{mode}: .* not all layers take fewer bits, .* a smaller encoder\."):
        export(mode)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("size", "advice"),
    [(200_000, "Leave out --quantize"), (400_000, "Use --quantize fp16"), (400_001, "Use a smaller encoder")],
)
def test_what_stays_in_float_is_advised_what_fits(size: int, advice: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(large, "_LARGEST", 200_000)
    assert large.without_integers(size) == advice


@pytest.mark.parametrize(("limit", "remedy"), [(200_000, "int8"), (2**31, "int8, or float32")])
def test_overflow_is_not_advised_what_does_not_fit(
    limit: int, remedy: str, exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    model = onnx.load(exported("clip"))
    monkeypatch.setattr(large, "_LARGEST", limit)
    wide = next(item for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT)
    wide.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(wide), 1e6), wide.name))
    with pytest.raises(QuantizationError, match=rf"Use --quantize {remedy}\.$"):
        quantize_fp16(model, Feeds({}))


def test_half_precision_leaves_sums_of_sizes_alone():
    """Traced towers have some, and an int64 that is watched as a float is refused by ONNX Runtime."""
    parts = """
        <ir_version: 10, opset_import: ["" : 20]>
        graph (float[n, 4] image) => (float[n, 4] twice)
        <int64[2] none = {0, 0}, float[4, 4] weight = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}> {
            shape = Shape(image)
            size = Add(shape, none)
            same = MatMul(image, weight)
            double = Add(same, image)
            twice = Reshape(double, size)
        }
    """
    feeds = Feeds({"image": np.arange(8, dtype=np.float32).reshape(2, 4)})
    model = quantize_fp16(onnx.parser.parse_model(parts), feeds)
    with large.opened(model) as session:
        (twice,) = session.run(["twice"], feeds.arrays)
    assert np.array_equal(twice, 2 * feeds.arrays["image"])


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
