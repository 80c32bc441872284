"""The exported file: what is in it, that it decides as PyTorch does, and that nothing appears when it does not."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import clip_toolkit
from clip_export import exporting
from clip_export.encoders.image import Encoder
from clip_export.exporting import ExportOptions, export_classifier
from clip_export.heads.files import TrainedHead
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.pooling import with_pooling
from clip_export.proof.parity import check
from clip_export.proof.reference import reference
from clip_export.samples.pictures import proof_files
from clip_toolkit.commands.infer import main as infer
from clip_toolkit.errors import HeadError, OutputError, ParityError
from clip_toolkit.images.preprocess import normalise
from tiny_models import SIZE

Exported = Callable[..., Path]
EncoderOf = Callable[..., Encoder]
HeadFor = Callable[[Encoder], TrainedHead]

FAMILIES = ["clip", "clip-gelu", "clip-crop", "siglip", "siglip2", "blip", "blip-retrieval"]
VARIANTS = [("image", "ort"), ("image", "standard"), ("pixels", "ort"), ("pixels", "standard")]
FUSED = {"clip": "QuickGelu", "siglip": "Gelu", "blip": "Gelu"}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("kind", "ops"), VARIANTS)
@pytest.mark.transformers
def test_every_family_passes_inference_selftest_and_description(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str, ops: str
):
    model = str(exported(name, kind=kind, ops=ops))
    picture = tmp_path / "picture.png"
    picture.write_bytes(proof_files(SIZE)[1])
    assert infer([str(picture), "--model", model, "--format", "json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["error"] is None
    assert infer(["--selftest", model]) == 0
    assert "selftest passed" in capsys.readouterr().out
    assert infer(["--describe", model]) == 0
    described = capsys.readouterr().out
    assert all(
        word in described for word in ("ant, bee, cow", "parity", "golden vectors", "normalisation", "made with")
    )


def test_the_fastest_device_is_measured_with_a_file_for_compilers(
    exported: Exported, capsys: pytest.CaptureFixture[str]
):
    model = str(exported("clip", kind="pixels", ops="standard"))
    assert infer(["--selftest", model, "--device", "fastest"]) == 0
    said = capsys.readouterr()
    assert "selftest passed" in said.out
    assert re.search(r"fastest device: \w+ \(cpu [\d.]+ ms", said.err)
    assert infer(["--selftest", model, "--device", "fastest"]) == 0
    assert "as measured before" in capsys.readouterr().err


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("kind", "ops"), VARIANTS)
def test_parity_from_image_bytes(exported: Exported, name: str, kind: str, ops: str):
    parity = clip_toolkit.load(exported(name, kind=kind, ops=ops)).spec.parity
    assert parity.batches == (1, 2, 5)
    assert len(parity.shapes) == parity.images == 6
    assert parity.pillow.pixels == 0
    assert parity.pillow.logits <= 1e-4 * parity.logit_scale
    assert (parity.graph is None) == (kind == "pixels")
    if parity.graph is not None:
        assert parity.graph.pixels <= 1
        assert parity.graph.logits <= 1e-2 * parity.logit_scale


@pytest.mark.parametrize(("name", "feature"), [("clip", "projected"), ("blip-retrieval", "projected")])
@pytest.mark.transformers
def test_projected_feature(exported: Exported, encoder: EncoderOf, name: str, feature: str):
    classifier = clip_toolkit.load(exported(name, feature))
    assert classifier.spec.encoder.feature == "projected"
    assert classifier.predict(proof_files(SIZE)[0]).embedding.shape == (encoder(name, feature).dim,)


CUTS = [("clip", "class+mean@2"), ("siglip", "mean@1"), ("dinov2-registers", "class+attention@2")]


@pytest.mark.parametrize(("name", "feature"), [*CUTS, ("siglip", "attention@1")])
@pytest.mark.transformers
def test_an_encoder_that_is_cut_behind_a_block(
    exported: Exported, encoder: EncoderOf, head_for: HeadFor, name: str, feature: str
):
    path, plain = exported(name, feature), encoder(name, feature)
    used = with_pooling(plain, head_for(plain))
    classifier = clip_toolkit.load(path)
    assert classifier.spec.encoder.feature == feature
    assert classifier.spec.parity.pillow.logits <= 1e-4 * classifier.spec.parity.logit_scale
    prediction = classifier.predict(proof_files(SIZE)[0])
    with torch.inference_mode():
        feature = used.features(
            torch.from_numpy(normalise(classifier.pixels(proof_files(SIZE)[0])[None], used.preprocessing))
        )
    np.testing.assert_allclose(prediction.embedding, torch.nn.functional.normalize(feature)[0], atol=1e-4)
    weights = {item.name for item in onnx.load(path).graph.initializer}
    assert {name.split(".")[2] for name in weights if name.startswith("vit.blocks.")} == set("01"[: used.tokens.depth])
    assert not any(name.startswith(("vit.post_norm.", "vit.pool.", "vit.projection.")) for name in weights)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.transformers
def test_the_files_answers_are_pytorchs_at_any_batch(
    exported: Exported, encoder: EncoderOf, head_for: HeadFor, batch: int
):
    """Once more by hand, so that a proof that proves nothing would show."""
    used, files = encoder("clip"), proof_files(SIZE)[:5]
    expected = reference(used, head_for(used).module, files)
    classifier = clip_toolkit.load(exported("clip"), resize="pillow")
    predictions = list(classifier.predict_many(files, batch))
    for name in ("probabilities", "logits", "embedding"):
        ours = np.stack([getattr(prediction, name) for prediction in predictions])
        np.testing.assert_allclose(ours, getattr(expected, name), atol=2e-6)
    assert np.ptp(expected.logits, axis=0).max() > 1e-3  # the pictures are not all the same to it


def test_interface_of_the_graph(exported: Exported):
    def interface(kind: str) -> dict[str, tuple[int, list[object]]]:
        graph = onnx.load(exported("clip", kind=kind)).graph
        return {
            value.name: (
                value.type.tensor_type.elem_type,
                [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
            )
            for value in (*graph.input, *graph.output)
        }

    outputs = {"probabilities": (1, ["batch", 3]), "logits": (1, ["batch", 3]), "embedding": (1, ["batch", 48])}
    assert interface("image") == {"image": (2, ["batch", "height", "width", 3])} | outputs
    assert interface("pixels") == {"pixel_values": (1, ["batch", 3, SIZE, SIZE])} | outputs


@pytest.mark.parametrize("name", ["clip", "siglip", "blip"])
def test_fused_operators_and_nothing_left_of_what_they_replace(exported: Exported, name: str):
    nodes = Counter(node.op_type for node in onnx.load(exported(name)).graph.node)
    pools = int(name == "siglip")
    assert nodes["MultiHeadAttention"] == 3 + pools
    assert nodes[FUSED[name]] == 3 + pools
    assert nodes["Softmax"] == 1  # of the probabilities
    assert nodes["Transpose"] == 2  # around the patch convolution
    assert nodes["Conv"] == nodes["Resize"] == 1
    assert not nodes["Sigmoid"]
    assert not nodes["Erf"]


@pytest.mark.parametrize("name", ["clip", "siglip", "blip"])
def test_standard_operators_alone(exported: Exported, name: str):
    model = onnx.load(exported(name, ops="standard"))
    assert {node.domain for node in model.graph.node} == {""}
    assert [item.domain for item in model.opset_import] == [""]
    onnx.checker.check_model(model, full_check=True)


def test_the_file_names_no_folder_of_the_machine_that_made_it(exported: Exported, checkpoint: Callable[[str], Path]):
    content = exported("clip").read_bytes()
    assert str(checkpoint("clip").parent).encode() not in content
    assert str(Path(exporting.__file__).parent).encode() not in content


def test_temperature_is_part_of_the_file(encoder: EncoderOf, head_for: HeadFor, tmp_path: Path):
    used = encoder("clip")
    spec = export_classifier(head_for(used), used, tmp_path / "m.onnx", options=ExportOptions(temperature=3.0)).spec
    prediction = clip_toolkit.load(tmp_path / "m.onnx").predict(proof_files(SIZE)[0])
    expected = torch.softmax(torch.from_numpy(prediction.logits) / 3, dim=-1).numpy()
    np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-6)
    assert spec.temperature == 3.0


def test_labels_of_the_caller_take_precedence(encoder: EncoderOf, head_for: HeadFor, tmp_path: Path):
    used = encoder("clip")
    assert export_classifier(head_for(used), used, tmp_path / "m.onnx", ["x", "y", "z"]).spec.labels == ("x", "y", "z")


def test_a_file_out_of_tolerance_never_appears(
    encoder: EncoderOf, head_for: HeadFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The proof has to notice a graph that differs from PyTorch by a hair in one weight."""
    used, output = encoder("clip"), tmp_path / "model.onnx"
    output.write_bytes(b"what was here before")
    build = exporting.network_graph

    def slightly_wrong(*arguments: object, **options: object) -> onnx.ModelProto:
        model = build(*arguments, **options)
        (weight,) = [item for item in model.graph.initializer if item.name.endswith("blocks.1.fc1.bias")]
        values = onnx.numpy_helper.to_array(weight).copy()
        values[:8] += 0.01
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return model

    monkeypatch.setattr(exporting, "network_graph", slightly_wrong)
    with pytest.raises(ParityError, match="No file was written"):
        export_classifier(head_for(used), used, output)
    assert output.read_bytes() == b"what was here before"
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]


def test_a_receipt_with_nan_does_not_pass(exported: Exported):
    parity = clip_toolkit.load(exported("clip")).spec.parity
    check(parity)
    with pytest.raises(ParityError, match="logits"):
        check(replace(parity, pillow=replace(parity.pillow, logits=float("nan"))))


def test_head_that_does_not_fit_the_encoder(encoder: EncoderOf, tmp_path: Path):
    with pytest.raises(HeadError, match=r"takes 768 inputs.*has 48"):
        export_classifier(TrainedHead(VLMtoMLP()), encoder("clip"), tmp_path / "m.onnx", ["a", "b"])


def test_a_single_output_is_refused(encoder: EncoderOf, tmp_path: Path):
    with pytest.raises(HeadError, match="one output per class"):
        export_classifier(TrainedHead(VLMtoMLP(48, 8, 1)), encoder("clip"), tmp_path / "m.onnx", ["a"])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", "b"], "3 outputs, but 2 labels"),
        (["a", "b", "a"], "differ"),
        (["a", "b", "\udce9"], "Unicode"),
        (None, "--labels"),
    ],
)
def test_labels_that_do_not_fit(encoder: EncoderOf, head_for: HeadFor, tmp_path: Path, labels: object, said: str):
    head = replace(head_for(encoder("clip")), labels=None)
    with pytest.raises(HeadError, match=said):
        export_classifier(head, encoder("clip"), tmp_path / "m.onnx", labels)


@pytest.mark.parametrize("facts", [{"temperature": -1.0}, {"training": {"loss": float("nan")}}])
def test_facts_that_no_reader_takes_are_refused_before_the_proof(
    encoder: EncoderOf, head_for: HeadFor, tmp_path: Path, facts: dict[str, object], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exporting, "network_graph", None)
    head = replace(head_for(encoder("clip")), **facts)
    with pytest.raises(HeadError, match="the head cannot be exported"):
        export_classifier(head, encoder("clip"), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_is_missing(encoder: EncoderOf, head_for: HeadFor, tmp_path: Path):
    with pytest.raises(OutputError, match="mkdir -p"):
        export_classifier(head_for(encoder("clip")), encoder("clip"), tmp_path / "no" / "m.onnx")
    with pytest.raises(OutputError, match="is a folder"):
        export_classifier(head_for(encoder("clip")), encoder("clip"), tmp_path)
