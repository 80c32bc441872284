"""What speaks for the decided label: the operators in the file against automatic differentiation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from clip_export.encoders.image import Encoder
from clip_export.exporting import ExportOptions, export_classifier
from clip_export.graph.network import TOKENS, network_graph
from clip_export.graph.relevance import Relevance, add_relevance
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
    features = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (expected,) = torch.autograd.grad(head(features).amax(1).sum(), features)
    torch.testing.assert_close(head_gradient(head, features), expected, rtol=1e-4, atol=1e-6)


@contextmanager
def scores_that_count(vit: VisionTransformer) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Attention of the pooling, with the scores as leaves: they, and the weights that come of them."""
    found: list[tuple[Tensor, Tensor]] = []

    def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, _: Tensor | None) -> Tensor:
        query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
        scores = (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).detach().requires_grad_()
        weights = scores.softmax(-1)
        found.append((scores, weights))
        return (weights @ value).transpose(1, 2).flatten(2)

    owner = vit.pool or vit.blocks[-1]
    before, owner.attention = owner.attention, attention
    yield found
    owner.attention = before


def expected_map(vit: VisionTransformer, head: VLMtoMLP, before: Tensor, after: Tensor) -> Tensor:
    """The definition: weight times the positive gradient in the score, summed; the last MLP moves with nothing."""
    config, maps = vit.config, []
    with scores_that_count(vit) as found:
        if vit.pool is not None:
            vit.pool.fc2.register_forward_hook(lambda *args: args[2].detach())
            pooled = vit.pool(vit.post_norm(after))
        else:
            read = []
            for name in config.poolings:
                if name == "class":
                    vit.blocks[-1].fc2.register_forward_hook(lambda *args: args[2].detach())
                    token = vit.blocks[-1](before, rotation=vit.rotation)[:, 0]
                else:
                    patches = after[:, config.prefix :]
                    query = torch.zeros(config.width) if vit.query is None else vit.query
                    compared = functional.layer_norm(patches, (config.width,), eps=config.eps)
                    scores = (compared @ query * config.width**-0.5)[:, None, None].detach().requires_grad_()
                    weights = scores.softmax(-1)
                    found.append((scores, weights))
                    token = (weights[:, 0] @ patches)[:, 0]
                for _ in range(config.post_norms):
                    token = vit.post_norm(token)
                read.append(token)
            pooled = torch.cat(read, 1)
        logit = head(vit.projection(pooled)).amax(1).sum()
    for scores, weights in found:
        (gradient,) = torch.autograd.grad(logit, scores, retain_graph=True)
        maps.append((weights * gradient.clamp(min=0))[:, :, 0, -config.patches :].sum(1))
    side = round(config.patches**0.5)
    return torch.stack(maps).sum(0).reshape(-1, side, side)


@pytest.mark.parametrize(("family", "feature"), POOLINGS)
def test_maps_are_those_of_automatic_differentiation(
    encoder: Callable[..., Encoder], head_for: Callable[[Encoder], TrainedHead], family: str, feature: str
):
    read = encoder(family, feature)
    read = with_pooling(read, head_for(read))
    vit, head = canonical_vit(read), head_for(read).module
    assert isinstance(head, VLMtoMLP)
    before, after = vit.last_tokens(pixels(read))
    found = Relevance(vit, head)(before, after).detach()
    expected = expected_map(vit, head, before, after).detach()
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.max()))


def network(read: Encoder, head: TrainedHead, ops: str) -> onnx.ModelProto:
    return network_graph(read, head.module, "image", ops, explained=True)


def check_maps(model: onnx.ModelProto, read: Encoder, head: TrainedHead, tolerance: float = 1e-4) -> None:
    """Add the output, which must be PyTorch's map of the tokens that this very network has made."""
    assert isinstance(head.module, VLMtoMLP)
    vit, images = canonical_vit(read), pixels(read, 4)
    add_relevance(model, vit, head.module)
    onnx.checker.check_model(model)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in TOKENS)
    found, *tokens = open_graph(model.SerializeToString()).run(["relevance", *TOKENS], {"image": images.numpy()})
    before, after = (torch.from_numpy(values).float() for values in tokens)
    expected = Relevance(vit, head.module)(before, after).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=tolerance * expected.max())


def test_standard_operators_give_the_same_maps(
    encoder: Callable[..., Encoder], head_for: Callable[[Encoder], TrainedHead]
):
    read = encoder("siglip")
    head = head_for(read)
    model = network(read, head, "standard")
    check_maps(model, read, head)
    assert {node.domain for node in model.graph.node} == {""}


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
    expected = Relevance(vit, head)(*vit.last_tokens(images)).detach().numpy()
    np.testing.assert_allclose(classifier.relevance(images.numpy()), expected, rtol=1e-3, atol=1e-4 * expected.max())
    for image, map_ in zip(images.numpy(), expected, strict=True):
        found = classifier.predict(image)
        np.testing.assert_allclose(found.relevance, map_, rtol=1e-3, atol=1e-4 * expected.max())
        np.testing.assert_allclose(found.probabilities, plain.predict(image).probabilities, atol=1e-6)
    assert {drift.output for drift in selftest(classifier)} >= {"relevance"}
    assert '"relevance"' not in plain.spec.to_json()


@pytest.mark.parametrize("mode", ["int8", "int4", "fp16"])
def test_quantized_networks_have_it_in_float(
    encoder: Callable[..., Encoder], head_for: Callable[[Encoder], TrainedHead], explained: Path, mode: str
):
    read = encoder("clip")
    head = head_for(read)
    model = with_plain_linears(network(read, head, "ort"))
    if mode == "int8":
        quantized = quantize_int8(model, Int8Scheme(TARGETS["x86"], "ort", ranges=None))
    elif mode == "int4":
        quantized = quantize_int4(model, 32, "ort")
    else:
        quantized = quantize_fp16(model, tuning_feeds(read_spec(explained), None))
    # On a CPU, ONNX Runtime reads some tokens before they are rounded to half precision.
    check_maps(quantized, read, head, 1e-3 if mode == "fp16" else 1e-4)


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
