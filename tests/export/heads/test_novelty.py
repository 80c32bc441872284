"""What training images look like: fitted, kept in head files, and computed by the graph."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file
from sklearn.covariance import LedoitWolf

from clip_export import further_outputs
from clip_export.encoders.image import Encoder
from clip_export.exporting import ExportOptions, export_classifier
from clip_export.graph.model_file import IR_VERSION, OPSET
from clip_export.graph.novelty import add_novelty
from clip_export.heads.files import TrainedHead, load_head, save_head
from clip_export.heads.novelty import Novelty, fit_novelty
from clip_export.quantization.evidence.examples import drawn_files
from clip_export.quantization.quantizing import QuantizationOptions
from clip_export.quantization.targets import find_target
from clip_toolkit import load
from clip_toolkit.errors import DatasetError, HeadError, ParityError
from clip_toolkit.runtime.session import open_graph
from clip_toolkit.spec.description import describe
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

RNG = np.random.default_rng(0)


def features(count: int, dim: int = 6, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    targets = np.arange(count) % classes
    found = RNG.normal(0, 0.2, (count, dim)) + 2 * np.eye(dim)[targets]
    return found / np.linalg.norm(found, axis=1, keepdims=True), targets


def fitted(dim: int = 6, share: float = 0.05) -> Novelty:
    train, targets = features(90, dim)
    return fit_novelty(train, targets, SINGLE_LABEL, features(60, dim)[0], share)


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL, REGRESSION])
def test_distances_are_those_of_the_precision_matrix(task: str):
    train, targets = features(90)
    found = fit_novelty(train, targets if task == SINGLE_LABEL else train, task, features(60)[0], 0.05)
    labels = targets if task == SINGLE_LABEL else np.zeros(90, int)
    means = np.stack([train[labels == label].mean(0) for label in np.unique(labels)])
    precision = LedoitWolf(assume_centered=True).fit(train - means[labels]).precision_
    for row, distance in zip(train[:9], found.distances(train[:9]), strict=True):
        expected = min(((row - mean) @ precision @ (row - mean)) ** 0.5 for mean in means)
        assert distance == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_the_threshold_leaves_out_the_share_of_further_images(share: float):
    beyond = []
    for _ in range(40):
        found = fitted(share=share)
        assert found.share <= share
        beyond.append((found.distances(features(60)[0]) > found.threshold).mean())
    assert np.mean(beyond) == pytest.approx(share, abs=0.04)


def test_unlike_images_are_far_away():
    found = fitted()
    assert (found.distances(-features(30)[0]) > 2 * found.threshold).all()


def test_refusals():
    train, targets = features(90)
    with pytest.raises(DatasetError, match=r"needs at least 19 validation images.*there are 18"):
        fit_novelty(train, targets, SINGLE_LABEL, train[:18], 0.05)
    fit_novelty(train, targets, SINGLE_LABEL, train[:19], 0.05)
    with pytest.raises(DatasetError, match="all alike"):
        fit_novelty(np.eye(6)[targets], targets, SINGLE_LABEL, train, 0.05)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_head_files_keep_it(
    encoder: Callable[..., Encoder], head_for: Callable[[Encoder], TrainedHead], tmp_path: Path, suffix: str
):
    plain, path = head_for(encoder("clip")), tmp_path / f"head{suffix}"
    save_head(plain, path)
    before = path.read_bytes()
    assert load_head(path).novelty is None
    known = replace(plain, novelty=fitted(encoder("clip").dim))
    save_head(known, path)
    found = load_head(path)
    assert found.novelty is not None
    assert found.novelty.threshold == known.novelty.threshold
    for name, array in known.novelty.arrays().items():
        np.testing.assert_array_equal(found.novelty.arrays()[name], array)
    torch.testing.assert_close(found.module.state_dict(), plain.module.state_dict())
    save_head(plain, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "shape", "nan"])
def test_damaged_statistics_are_refused(
    encoder: Callable[..., Encoder], head_for: Callable[[Encoder], TrainedHead], tmp_path: Path, damage: str
):
    path = tmp_path / "head.safetensors"
    save_head(replace(head_for(encoder("clip")), novelty=fitted(encoder("clip").dim)), path)
    with safetensors.safe_open(path, "pt") as file:
        told = file.metadata()
    weights = load_file(path)
    if damage == "missing":
        del weights["novelty.means"]
    elif damage == "shape":
        weights["novelty.centre"] = weights["novelty.centre"][1:]
    else:
        weights["novelty.whitening"][0, 0] = torch.nan
    save_file(weights, path, metadata=told)
    with pytest.raises(HeadError, match="statistics of the training images are damaged"):
        load_head(path)


def test_the_graph_computes_the_same():
    embedding = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 6]) for name in ("in", "embedding")]
    graph = helper.make_graph([helper.make_node("Identity", ["in"], ["embedding"])], "g", embedding[:1], embedding[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    known = fitted()
    add_novelty(model, known)
    onnx.checker.check_model(model, full_check=True)
    rows = np.concatenate([features(20)[0], -features(20)[0]]).astype(np.float32)
    (found,) = open_graph(model.SerializeToString(), 1).run(["novelty"], {"in": rows})
    np.testing.assert_allclose(found, known.distances(rows), rtol=1e-5)


@pytest.mark.parametrize("ops", ["ort", "standard"])
def test_exported_files_tell_it(
    encoder: Callable[..., Encoder], head_for: Callable[[Encoder], TrainedHead], tmp_path: Path, ops: str
):
    read, known = encoder("clip"), fitted(encoder("clip").dim)
    head = replace(head_for(read), novelty=known)
    spec = export_classifier(head, read, tmp_path / "model.onnx", options=ExportOptions(ops=ops)).spec
    assert spec.novelty is not None
    assert spec.novelty.threshold == known.threshold
    classifier = load(tmp_path / "model.onnx", device="cpu")
    pictures = [np.full((40, 60, 3), shade, np.uint8) for shade in (0, 90, 200)]
    for found in classifier.predict_many(pictures):
        (expected,) = known.distances(found.embedding[None])
        assert found.novelty == pytest.approx(expected, rel=1e-4)
        assert found.is_novel == (expected > known.threshold)


def test_quantized_files_say_how_many_images_are_beyond_now(
    encoder: Callable[..., Encoder], head_for: Callable[[Encoder], TrainedHead], tmp_path: Path
):
    read, known = encoder("clip"), fitted(encoder("clip").dim)
    options = ExportOptions(quantization=QuantizationOptions("fp16", find_target("auto"), min_agreement=0.5))
    spec = export_classifier(replace(head_for(read), novelty=known), read, tmp_path / "half.onnx", options=options).spec
    assert spec.novelty is not None
    classifier = load(tmp_path / "half.onnx", device="cpu")
    found = [item.is_novel for item in classifier.predict_many(drawn_files(spec))]
    assert spec.novelty.quantized == (pytest.approx(np.mean(found), abs=0.2), np.mean(found))
    assert f"{np.mean(found):.1%} now" in "\n".join(describe(spec, tmp_path / "half.onnx"))


def test_a_wrong_graph_is_not_written(
    encoder: Callable[..., Encoder], head_for: Callable[[Encoder], TrainedHead], tmp_path: Path, monkeypatch
):
    read, known = encoder("clip"), fitted(encoder("clip").dim)
    other = replace(known, means=known.means + np.float32(1))
    monkeypatch.setattr(further_outputs, "add_novelty", lambda model, _: add_novelty(model, other))
    with pytest.raises(ParityError, match="novelty drift"):
        export_classifier(replace(head_for(read), novelty=known), read, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
