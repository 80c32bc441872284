"""The parts of quantization: rewrites are exact, integers do not saturate, outliers do no harm."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from outliers import add_outliers
from PIL import Image

from clip_export.encoders.image import Encoder
from clip_export.features.images import image_features
from clip_export.graph.network import network_graph
from clip_export.heads.mlp import VLMtoMLP
from clip_export.quantization.equalisation import equalised
from clip_export.quantization.evidence.feeds import Feeds
from clip_export.quantization.layers import attention
from clip_export.quantization.layers.linears import find_linears, with_plain_linears
from clip_export.quantization.modes.int8 import Int8Scheme, quantize_int8
from clip_export.quantization.ranges import RANGES, Activation, observe, run
from clip_export.quantization.search import Int8Search
from clip_export.quantization.targets import TARGETS, find_target
from clip_export.quantization.weights import quantized_weight, rounded_together
from clip_export.samples.pictures import picture
from clip_export.training.epochs import Examples
from clip_export.training.loop import train_head
from clip_export.training.options import TrainingOptions
from clip_toolkit.spec.tasks import SINGLE_LABEL
from tiny_models import SIZE

EncoderOf = Callable[..., Encoder]
FAMILIES = ["clip", "siglip", "blip"]


def fed(images: np.ndarray) -> Feeds:
    return Feeds({"image": images})


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.stack([np.asarray(picture(SIZE, SIZE, seed + i)) for i in range(count)])


def network(encoder: Encoder, head: VLMtoMLP | None = None, ops: str = "ort") -> onnx.ModelProto:
    torch.manual_seed(0)
    head = head or VLMtoMLP(encoder.dim, 8, 3).eval()
    return with_plain_linears(network_graph(encoder, head, "image", ops))


def logits(model: onnx.ModelProto, inputs: np.ndarray) -> np.ndarray:
    return np.concatenate([values for (values,) in run(model, fed(inputs), ["logits"])])


@pytest.mark.parametrize("name", FAMILIES)
def test_plain_linears_are_the_same_network(encoder: EncoderOf, name: str):
    torch.manual_seed(0)
    model = network_graph(encoder(name), VLMtoMLP(encoder(name).dim, 8, 3).eval(), "image", "ort")
    plain = with_plain_linears(model)
    onnx.checker.check_model(plain)
    np.testing.assert_allclose(logits(plain, images(3)), logits(model, images(3)), atol=1e-5)
    blocks = 3 * 4 + (1 if name != "siglip" else 4)  # the last block's query apart, or the pool's four layers
    assert len(find_linears(plain)) == blocks


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("alpha", [0.3, 0.9])
def test_equalisation_is_exact_and_knows_its_activations(encoder: EncoderOf, name: str, alpha: float):
    model = network(encoder(name))
    sources = [layer.source for layer in find_linears(model).values()]
    seen = observe(model, fed(images(4)), sources)
    changed, predicted = equalised(model, seen, alpha)
    np.testing.assert_allclose(logits(changed, images(5, 50)), logits(model, images(5, 50)), atol=1e-4)
    found = observe(changed, fed(images(4)), sources)
    moved = [source for source in sources if not np.allclose(seen[source].channel_high, found[source].channel_high)]
    assert len(moved) >= 2 * 3  # at least one joint in front of attention and MLP of each block
    for source in sources:
        np.testing.assert_allclose(predicted[source].channel_high, found[source].channel_high, rtol=1e-3, atol=1e-4)


def test_weights_rounded_together_do_better_on_correlated_inputs():
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((600, 6)) @ rng.standard_normal((6, 48))).astype(np.float32)
    rows += 0.05 * rng.standard_normal(rows.shape).astype(np.float32)
    weight = rng.standard_normal((48, 20)).astype(np.float32)

    def error(integers: np.ndarray, scale: np.ndarray) -> float:
        return float(np.square(rows @ (integers * scale - weight)).mean())

    target = TARGETS["x86"]
    together, apart = rounded_together(weight, rows, target), quantized_weight(weight, target)
    assert error(*together) < 0.3 * error(*apart)
    assert np.abs(together[0].astype(int)).max() <= target.largest_weight
    np.testing.assert_array_equal(together[1], apart[1])


@pytest.mark.parametrize("name", RANGES)
def test_ranges_cover_the_bulk_and_not_more_than_everything(name: str):
    rng = np.random.default_rng(0)
    sample = rng.standard_normal((2000, 8)).astype(np.float32)
    sample[0, 0] = 500.0  # one outlier
    low, high = RANGES[name](Activation(sample.min(0), sample.max(0), sample))
    assert sample.min() <= low <= -2
    assert 2 <= high <= 500
    if name in ("percentile 99.9", "entropy"):
        assert high < 100


def layer_ranges(model: onnx.ModelProto, inputs: np.ndarray) -> dict[str, tuple[float, float]]:
    seen = observe(model, fed(inputs), [layer.source for layer in find_linears(model).values()])
    return {source: (activation.low, activation.high) for source, activation in seen.items()}


def spread(differences: NDArray[np.float32]) -> float:
    """Root mean square: of four images the largest difference is a matter of luck."""
    return float(np.sqrt(np.mean(differences**2)))


@pytest.mark.parametrize("ops", ["ort", "standard"])
@pytest.mark.parametrize("name", FAMILIES)
def test_sixteen_bit_activations_leave_the_weights_error_alone(encoder: EncoderOf, name: str, ops: str):
    model, inputs = network(encoder(name), ops=ops), images(4)
    layers, ranges = find_linears(model), layer_ranges(model, inputs)
    target, exact = find_target("auto"), logits(model, inputs)

    def error(**options: object) -> float:
        return spread(logits(quantize_int8(model, Int8Scheme(target, ops, ranges, **options)), inputs) - exact)

    fine = error(fine_layers=frozenset(layers))
    only_weights = onnx.ModelProto()
    only_weights.CopyFrom(model)
    for item in only_weights.graph.initializer:
        if item.name.removesuffix(".weight") in layers:
            integers, scale = quantized_weight(numpy_helper.to_array(item), target)
            item.CopyFrom(numpy_helper.from_array((integers * scale).astype(np.float32), item.name))
    in_float = Int8Scheme(target, ops, None, frozenset(layers))
    weights = spread(logits(quantize_int8(only_weights, in_float), inputs) - exact)
    assert fine == pytest.approx(weights, rel=0.05)
    assert fine < error() or target.name == "x86"  # where weights of 7 bits are the larger part of the error


@pytest.mark.parametrize(("name", "fused"), [("clip", 2), ("siglip", 3), ("blip", 2)])
def test_attention_fused_with_its_product_decides_the_same(
    encoder: EncoderOf, name: str, fused: int, monkeypatch: pytest.MonkeyPatch
):
    model, inputs = network(encoder(name)), images(8)
    scheme = Int8Scheme(find_target("auto"), "ort", layer_ranges(model, inputs))
    together = quantize_int8(model, scheme)
    assert operators(together)["QAttention"] == fused
    onnx.checker.check_model(together)
    monkeypatch.setattr(attention, "MOST_TOKENS", 0)
    apart = quantize_int8(model, scheme)
    assert operators(apart)["QAttention"] == 0
    exact, both, one = (logits(each, inputs) for each in (model, together, apart))
    assert spread(both - one) < 0.5 * spread(one - exact)  # other roundings, no other network


@pytest.mark.parametrize("target", ["x86", "web", "arm64"])
def test_attention_is_fused_where_the_operator_takes_the_activations(encoder: EncoderOf, target: str):
    model, inputs = network(encoder("clip")), images(4)
    quantized = quantize_int8(model, Int8Scheme(TARGETS[target], "ort", layer_ranges(model, inputs)))
    assert operators(quantized)["QAttention"] == (0 if target == "arm64" else 2)
    assert np.isfinite(logits(quantized, inputs)).all()


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def saturating_sums(integers: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Products as x86 without VNNI computes them: pairs of them are added in 16 bits (vpmaddubsw)."""
    pairs = integers.astype(np.int32)[..., :, None] * weight.astype(np.int32)
    pairs = pairs.reshape(*pairs.shape[:-2], -1, 2, pairs.shape[-1]).sum(-2)
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(-2)


def differs_by_saturation(model: onnx.ModelProto, inputs: np.ndarray) -> bool:
    """Whether any integer product of a graph would come out differently where sums of pairs saturate."""
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("MatMulIntegerToFloat", "QAttention")]
    names = list(dict.fromkeys(node.input[0] for node in products))
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    wider.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None) for name in names)
    (values,) = run(wider, fed(inputs), names)
    integers = dict(zip(names, values, strict=True))
    return any(
        not np.array_equal(
            saturating_sums(integers[node.input[0]], constants[node.input[1]]),
            integers[node.input[0]].astype(np.int64) @ constants[node.input[1]].astype(np.int64),
        )
        for node in products
    )


def test_x86_without_vnni_does_not_saturate(encoder: EncoderOf):
    inputs = np.concatenate([images(2), np.full((1, SIZE, SIZE, 3), 255, np.uint8)])  # white: the largest pixels
    saturated = {}
    for name in ("x86", "x86-vnni"):
        search = Int8Search(
            network(encoder("clip")), fed(inputs), TARGETS[name], "ort", SINGLE_LABEL, np.inf, lambda _: None
        )
        saturated[name] = differs_by_saturation(search.build(search.best()), inputs)
    assert saturated == {"x86": False, "x86-vnni": True}


class Images(CalibrationDataReader):
    """One batch."""

    def __init__(self, inputs: np.ndarray) -> None:
        self.batches = iter([{"image": inputs}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def test_outlier_channels_break_plain_static_int8_and_not_ours(checkpoint: Callable[[str], Path], tmp_path: Path):
    plain = Encoder.from_pretrained(str(checkpoint("clip")))
    folder = add_outliers(shutil.copytree(checkpoint("clip"), tmp_path / "outliers"), factor=300.0, channels=2)
    encoder = Encoder.from_pretrained(str(folder))
    tuned, judged = images(32), images(120, 1000)
    head = colour_head(encoder, tmp_path, images(200, 5000))
    exact = logits(network(plain, head), judged)
    model = network(encoder, head)
    np.testing.assert_allclose(logits(model, judged), exact, atol=1e-3)  # the outliers change nothing in float
    onnx.save(model, tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "naive.onnx",
        Images(tuned),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
    )
    search = Int8Search(model, fed(tuned), find_target("auto"), "ort", SINGLE_LABEL, np.inf, lambda _: None)
    best = search.best()

    def agreement(quantized: onnx.ModelProto) -> float:
        return float((logits(quantized, judged).argmax(1) == exact.argmax(1)).mean())

    assert agreement(onnx.load(tmp_path / "naive.onnx")) < 0.9
    assert best.alpha is not None
    assert agreement(search.build(best)) >= 0.95
    held = next(choice for choice in search.more_exact(best) if agreement(search.build(choice)) >= 0.99)
    assert not held.float_layers


def colour_head(encoder: Encoder, folder: Path, pictures: np.ndarray) -> VLMtoMLP:
    """A head that tells which colour prevails."""
    paths = [folder / f"{i}.png" for i in range(len(pictures))]
    for path, pixels in zip(paths, pictures, strict=True):
        Image.fromarray(pixels).save(path)
    features = image_features(encoder, paths).values
    classes = torch.tensor(pictures.reshape(len(pictures), -1, 3).mean(1).argmax(1))
    examples = Examples(features, classes)
    return train_head(examples, examples, 3, TrainingOptions(epochs=100, learning_rate=1e-2, hidden_dim=16)).head
