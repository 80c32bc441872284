"""Convolutions of traced towers in int8: near the float ones, in integers at run time, whatever their channels hold."""

from __future__ import annotations

from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from clip_export.graph.tracing import trace
from clip_export.quantization.evidence.feeds import Feeds
from clip_export.quantization.layers.convolutions import find_convolutions, with_integer_convolutions
from clip_export.quantization.layers.linears import with_plain_linears
from clip_export.quantization.ranges import RANGES, Activation, observe, run
from clip_export.quantization.targets import find_target


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    """Patches, a dense and a depthwise convolution, and a dense one with a dead channel and one unlike the others."""
    torch.manual_seed(2)
    layers = [nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 16, 3, 2, 1), nn.GELU(), nn.Conv2d(16, 16, 3, 1, 1, groups=16)]
    layers += [nn.Conv2d(16, 12, 1)]
    with torch.no_grad():
        layers[-1].weight[3], layers[-1].bias[3] = 0.0, 0.7
        layers[-1].weight[4] *= 20
    tower = nn.Sequential(OrderedDict(vit=nn.Sequential(OrderedDict(tower=nn.Sequential(*layers)))))
    return with_plain_linears(trace(tower, {"values": torch.rand(3, 3, 32, 32)}, ["made"]))


@pytest.fixture(scope="module")
def inputs() -> Feeds:
    return Feeds({"values": np.random.default_rng(1).random((8, 3, 32, 32), np.float32)})


def made(model: onnx.ModelProto, inputs: Feeds) -> np.ndarray:
    return np.concatenate([values for (values,) in run(model, inputs, ["made"])])


def quantized(network: onnx.ModelProto, inputs: Feeds, left: frozenset[str] = frozenset()) -> onnx.ModelProto:
    tensors = [name for node in find_convolutions(network).values() for name in (node.input[0], node.output[0])]
    ranges = {name: RANGES["min-max"](seen) for name, seen in observe(network, inputs, tensors).items()}
    return with_integer_convolutions(network, find_target("x86"), ranges, left)


def test_dense_ones_are_near_the_float_ones(network: onnx.ModelProto, inputs: Feeds):
    exact, found = made(network, inputs), made(quantized(network, inputs), inputs)
    assert 0 < np.abs(found - exact).max() < 0.03 * np.abs(exact).max()
    np.testing.assert_allclose(found[:, 3], 0.7, atol=0.03 * np.abs(exact).max())


def test_runtime_computes_them_in_integers(network: onnx.ModelProto, inputs: Feeds, tmp_path: Path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # the optimised file is for this machine
    model = quantized(network, inputs).SerializeToString()
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert (kinds["QLinearConv"], kinds["Conv"] + kinds["FusedConv"]) == (2, 2)  # patches and depthwise in float


@pytest.mark.parametrize("name", RANGES)
def test_values_far_from_zero_have_a_range(name: str):
    values = np.linspace(0.9, 1.0, 640, dtype=np.float32).reshape(64, 10)
    low, high = RANGES[name](Activation(values.min(0), values.max(0), values))
    assert low < 1
    assert 0.9 < high <= 1


def test_those_left_in_float_stay_exact(network: onnx.ModelProto, inputs: Feeds):
    found = quantized(network, inputs, frozenset(find_convolutions(network)))
    np.testing.assert_array_equal(made(found, inputs), made(network, inputs))
