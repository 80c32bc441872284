"""What speaks for the decided label: the operators in the file against automatic differentiation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from clip_export.encoders.image import Encoder
from clip_export.exporting import ExportOptions, export_classifier
from clip_export.graph.network import network_graph
from clip_export.graph.relevance import Relevance, add_relevance, cells_a_side
from clip_export.graph.vit import VisionTransformer
from clip_export.graph.vit_weights import canonical_vit
from clip_export.heads.activations import ACTIVATIONS
from clip_export.heads.files import TrainedHead
from clip_export.heads.gradients import head_gradient
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.pooling import with_pooling
from clip_export.proof.relevance import check_explained
from clip_export.quantization.evidence.examples import tuning_feeds
from clip_export.quantization.layers.linears import with_plain_linears
from clip_export.quantization.modes.fp16 import quantize_fp16
from clip_export.quantization.modes.int4 import quantize_int4
from clip_export.quantization.modes.int8 import Int8Scheme, quantize_int8
from clip_export.quantization.targets import TARGETS
from clip_toolkit import load, selftest
from clip_toolkit.errors import EncoderError, HeadError
from clip_toolkit.runtime.session import open_graph
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import REGRESSION

RNG = np.random.default_rng(3)
POOLINGS = [
    ("clip", "pooled"),
    ("clip", "projected"),
    ("clip", "class@1"),
    ("clip", "mean@2"),
    ("clip", "class+mean@2"),
    ("clip", "class+attention@2"),
    ("siglip", "attention@2"),
    ("clipa", "pooled"),
    ("siglip", "pooled"),
    ("blip", "pooled"),
    ("dinov2", "pooled"),
    ("dinov3", "pooled"),
]


def pixels(encoder: Encoder, count: int = 2) -> Tensor:
    side = encoder.preprocessing.size
    return torch.from_numpy(RNG.integers(0, 256, (count, side, side, 3), np.uint8))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("feature_norm", [False, True])
def test_the_gradient_of_a_head(activation: str, feature_norm: bool):
    head = VLMtoMLP(6, (9, 7), 4, activation, feature_norm=feature_norm).eval()
    generator = torch.Generator().manual_seed(0)
    features, pulled = torch.randn(5, 6, generator=generator).requires_grad_(), torch.randn(5, 4, generator=generator)
    (expected,) = torch.autograd.grad(head(features), features, pulled)
    torch.testing.assert_close(head_gradient(head, features, pulled), expected, rtol=1e-4, atol=1e-6)


def expected_maps(vit: VisionTransformer, head: VLMtoMLP, images: Tensor) -> Tensor:
    """The definition, pixel by pixel: the gradient half-way to the mean colour, times what is left out of it."""
    decided = head(vit(images)).argmax(1)
    mean = images.float().mean((1, 2), keepdim=True).expand(images.shape)
    halfway = ((images + mean) / 2).requires_grad_()
    (gradient,) = torch.autograd.grad(head(vit(halfway))[range(len(images)), decided].sum(), halfway)
    made = (gradient * (images - mean)).sum(-1)
    rows = cells_a_side(vit)
    bands = [torch.stack([cell.sum((1, 2)) for cell in band.chunk(rows, 2)], 1) for band in made.chunk(rows, 1)]
    return torch.stack(bands, 1).clamp(min=0)


@pytest.mark.parametrize(("family", "feature"), POOLINGS)
def test_maps_are_those_of_automatic_differentiation(
    encoder: Callable[..., Encoder], head_for: Callable[[Encoder], TrainedHead], family: str, feature: str
):
    read = encoder(family, feature)
    read = with_pooling(read, head_for(read))
    vit, head = canonical_vit(read), head_for(read).module
    assert isinstance(head, VLMtoMLP)
    images = pixels(read)
    found = Relevance(vit, head)(images, head(vit(images))).detach()
    expected = expected_maps(vit, head, images)
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.max()))


def test_a_map_finds_the_patch_that_alone_was_changed(
    encoder: Callable[..., Encoder], head_for: Callable[[Encoder], TrainedHead]
):
    read = encoder("clip")
    vit, head = canonical_vit(read), head_for(read).module
    assert isinstance(head, VLMtoMLP)
    patch, rows = vit.config.patch, cells_a_side(vit)
    images = torch.full_like(pixels(read, 1), 100)
    images[:, -patch:, :patch] = pixels(read, 1)[:, :patch, :patch]
    made = Relevance(vit, head)(images, head(vit(images)))[0]
    row, column = divmod(int(made.argmax()), rows)
    assert row >= rows - rows * patch // vit.config.size
    assert column < rows * patch // vit.config.size


def network(read: Encoder, head: TrainedHead, ops: str, kind: str = "image") -> onnx.ModelProto:
    return with_plain_linears(network_graph(read, head.module, kind, ops))


def maps_of(model: onnx.ModelProto, read: Encoder, head: TrainedHead, images: Tensor) -> tuple[Tensor, Tensor]:
    """Add the output: what the graph says then, and what PyTorch does."""
    assert isinstance(head.module, VLMtoMLP)
    values = model.graph.input[0].name == "pixel_values"
    add_relevance(model, canonical_vit(read, takes_pixel_values=values), head.module)
    onnx.checker.check_model(model)
    feed = normalised(images, read) if values else images
    (found,) = open_graph(model.SerializeToString()).run(["relevance"], {model.graph.input[0].name: feed.numpy()})
    return torch.from_numpy(found), expected_maps(canonical_vit(read), head.module, images)


def normalised(images: Tensor, read: Encoder) -> Tensor:
    rule = read.preprocessing
    return ((images * rule.scale - torch.tensor(rule.mean)) / torch.tensor(rule.std)).float().permute(0, 3, 1, 2)


@pytest.mark.parametrize(("ops", "kind"), [("standard", "image"), ("ort", "pixels")])
def test_every_form_of_a_float_network_gives_the_same_maps(
    encoder: Callable[..., Encoder], head_for: Callable[[Encoder], TrainedHead], ops: str, kind: str
):
    read = encoder("siglip")
    head = head_for(read)
    model = network(read, head, ops, kind)
    size = model.ByteSize()
    found, expected = maps_of(model, read, head, pixels(read, 4))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))
    assert ops != "standard" or {node.domain for node in model.graph.node} == {""}
    weights = sum(4 * weight.numel() for weight in canonical_vit(read).parameters())
    assert (
        sum(len(item.raw_data) for item in model.graph.initializer if item.name.startswith("relevance")) < weights / 4
    )
    assert model.ByteSize() > size


@pytest.fixture(scope="module")
def explained(
    encoder: Callable[..., Encoder],
    head_for: Callable[[Encoder], TrainedHead],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A finished file."""
    path = tmp_path_factory.mktemp("explained") / "model.onnx"
    export_classifier(head_for(encoder("clip")), encoder("clip"), path, options=ExportOptions(explain=True))
    return path


def test_the_file_gives_the_maps_beside_the_answers_that_it_gave_before(
    encoder: Callable[..., Encoder],
    head_for: Callable[[Encoder], TrainedHead],
    exported: Callable[..., Path],
    explained: Path,
):
    read = encoder("clip")
    classifier, plain = load(explained, device="cpu"), load(exported("clip"), device="cpu")
    vit, head = canonical_vit(read), head_for(read).module
    assert isinstance(head, VLMtoMLP)
    images = pixels(read, 3)
    expected = expected_maps(vit, head, images).numpy()
    np.testing.assert_allclose(classifier.relevance(images.numpy()), expected, rtol=1e-3, atol=1e-4 * expected.max())
    for image, map_ in zip(images.numpy(), expected, strict=True):
        found = classifier.predict(image)
        np.testing.assert_allclose(found.relevance, map_, rtol=1e-3, atol=1e-4 * expected.max())
        np.testing.assert_allclose(found.probabilities, plain.predict(image).probabilities, atol=1e-6)
    assert {drift.output for drift in selftest(classifier)} >= {"relevance"}
    assert '"relevance"' not in plain.spec.to_json()


def test_maps_that_nobody_wants_are_left_out(explained: Path):
    classifier, image = load(explained, device="cpu"), RNG.integers(0, 256, (40, 30, 3), np.uint8)
    wanted = classifier.predict(image)
    classifier.explains = False
    found = classifier.predict(image)
    assert wanted.relevance is not None
    assert found.relevance is None
    np.testing.assert_array_equal(found.logits, wanted.logits)
    graph = open_graph(explained)
    assert graph.may_take("explain")
    (left_out,) = graph.run(["relevance"], {"image": image[None], "explain": np.array([0])})
    assert left_out.shape == (0, *wanted.relevance.shape)


@pytest.mark.parametrize(
    ("mode", "ops", "error"),
    [("int8", "ort", 0.02), ("int4", "ort", 0.2), ("int4", "standard", 0.2), ("fp16", "ort", 1e-3)],
)
def test_quantized_networks_are_explained_by_their_own_weights(
    encoder: Callable[..., Encoder],
    head_for: Callable[[Encoder], TrainedHead],
    explained: Path,
    *,
    mode: str,
    error: float,
    ops: str,
):
    read = encoder("clip")
    head, images = head_for(read), {"image": pixels(read, 4).numpy()}
    assert isinstance(head.module, VLMtoMLP)
    model = network(read, head, ops)
    if mode == "int8":
        model = quantize_int8(model, Int8Scheme(TARGETS["x86"], ops, ranges=None))
    elif mode == "int4":
        model = quantize_int4(model, 32, ops)
    else:
        model = quantize_fp16(model, tuning_feeds(read_spec(explained), None))
    (before,) = open_graph(model.SerializeToString()).run(["logits"], images)
    vit = canonical_vit(read)
    add_relevance(model, vit, head.module)
    layers = {f"relevance/part/vit.{name}": value for name, value in vit.named_parameters() if ".blocks." in f".{name}"}
    stored = {item.name for item in model.graph.initializer}
    assert not [name for name in layers if name in stored and name.endswith(".weight")]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in layers)
    after, maps, *weights = open_graph(model.SerializeToString()).run(["logits", "relevance", *layers], images)
    np.testing.assert_array_equal(after, before)
    assert maps.max() > 0
    for found, expected in zip(weights, layers.values(), strict=True):
        assert np.linalg.norm(found - expected.numpy()) <= error * float(expected.norm())


def test_refusals(encoder: Callable[..., Encoder], head_for: Callable[[Encoder], TrainedHead]):
    read = encoder("clip")
    head = head_for(read)
    check_explained(head, read, reads_texts=False)
    with pytest.raises(HeadError, match="reads texts"):
        check_explained(head, read, reads_texts=True)
    with pytest.raises(HeadError, match="one head"):
        check_explained(replace(head, further=(head,)), read, reads_texts=False)
    with pytest.raises(HeadError, match="has others"):
        check_explained(replace(head, module=torch.nn.Linear(2, 2)), read, reads_texts=False)  # type: ignore[arg-type]
    with pytest.raises(HeadError, match="one value"):
        check_explained(replace(head, task=REGRESSION), read, reads_texts=False)
    with pytest.raises(EncoderError, match="keep their shape"):
        check_explained(head, encoder("siglip2-naflex"), reads_texts=False)
