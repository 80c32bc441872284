"""What the activations look like on calibration images, and which range of them is worth representing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from clip_export.graph.large import opened
from clip_export.quantization.evidence.feeds import Feeds

BATCH = 8
"""Images in a run."""

_SAMPLE = 2048  # rows (tokens) of each tensor that are kept: enough to round 3,072 weights together, and not too large
_LEVELS = 256
_BINS = 2048
_FRACTIONS = np.geomspace(0.05, 1.0, 40)  # of the largest absolute value, at which to clip


@dataclass(frozen=True)
class Activation:
    """A tensor over all calibration images.

    Attributes:
        channel_low: float32 ``[channels]``, least value of each channel.
        channel_high: float32 ``[channels]``, largest value of each channel.
        sample: float32 ``[rows, channels]``, some of its rows.
    """

    channel_low: NDArray[np.float32]
    channel_high: NDArray[np.float32]
    sample: NDArray[np.float32]

    @property
    def low(self) -> float:
        """Least value."""
        return float(self.channel_low.min())

    @property
    def high(self) -> float:
        """Largest value."""
        return float(self.channel_high.max())

    @property
    def channel_largest(self) -> NDArray[np.float32]:
        """float32 ``[channels]``, largest absolute value of each channel."""
        return np.maximum(np.abs(self.channel_low), np.abs(self.channel_high))

    def divided(self, factor: NDArray[np.float32]) -> Activation:
        """Return the tensor with its channels divided by ``factor`` ``[channels]``, all above 0."""
        return Activation(self.channel_low / factor, self.channel_high / factor, self.sample / factor)


def run(
    model: onnx.ModelProto, feeds: Feeds, outputs: Sequence[str], batch: int = BATCH
) -> Iterator[list[NDArray[Any]]]:
    """Values of ``outputs`` for each batch of examples, by ONNX Runtime on the CPU."""
    with opened(model) as session:
        for start in range(0, len(feeds), batch):
            yield session.run(outputs, feeds[start : start + batch].arrays)


def observe(model: onnx.ModelProto, feeds: Feeds, tensors: Iterable[str]) -> dict[str, Activation]:
    """Run the float network on calibration images and look at some of its tensors.

    Args:
        model: the network.
        feeds: its inputs.
        tensors: names of float tensors of shape ``[..., channels]``.
    """
    names = list(dict.fromkeys(tensors))
    seen = {name: _Accumulator(len(feeds)) for name in names}
    for values in run(with_outputs(model, names), feeds, names):
        for name, value in zip(names, values, strict=True):
            seen[name].add(value.reshape(-1, value.shape[-1]), min(BATCH, len(feeds)))
    return {name: accumulator.result() for name, accumulator in seen.items()}


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return the network with more outputs."""
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    wider.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return wider


class _Accumulator:
    """Running extremes of a tensor, and an even share of the sample from every batch."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.low: NDArray[np.float32] | float = np.inf
        self.high: NDArray[np.float32] | float = -np.inf
        self.rows: list[NDArray[np.float32]] = []
        self.rng = np.random.default_rng(0)

    def add(self, values: NDArray[np.float32], images: int) -> None:
        self.low, self.high = np.minimum(self.low, values.min(0)), np.maximum(self.high, values.max(0))
        count = min(len(values), -(-_SAMPLE * images // self.images))
        self.rows.append(values[self.rng.choice(len(values), count, replace=False)])

    def result(self) -> Activation:
        return Activation(np.asarray(self.low), np.asarray(self.high), np.concatenate(self.rows))


def _whole(activation: Activation) -> tuple[float, float]:
    return activation.low, activation.high


def _percentile(percent: float) -> Callable[[Activation], tuple[float, float]]:
    def choose(activation: Activation) -> tuple[float, float]:
        low, high = np.percentile(activation.sample, [100 - percent, percent])
        return float(low), float(high)

    return choose


def _entropy(activation: Activation) -> tuple[float, float]:
    """Find the clipping whose 256 levels tell most of the distribution: least Kullback-Leibler divergence.

    After S. Migacz, "8-bit Inference with TensorRT", GTC 2017.
    """
    counts, edges = np.histogram(activation.sample, _BINS)
    middles = (edges[:-1] + edges[1:]) / 2

    def divergence(fraction: float) -> float:
        low, high = _cut(activation, fraction)
        inside = (middles >= low) & (middles <= high)
        if not inside.any():  # of values that all lie far from zero
            return np.inf
        clipped = np.where(inside, counts, 0).astype(np.float64)
        first, last = np.flatnonzero(inside)[[0, -1]]
        clipped[first] += counts[:first].sum()
        clipped[last] += counts[last + 1 :].sum()
        return _divergence(clipped, np.where(inside, counts, 0), inside)

    return _cut(activation, min(_FRACTIONS, key=divergence))


def _divergence(reference: NDArray[np.float64], counts: NDArray[np.integer], inside: NDArray[np.bool_]) -> float:
    """Of the clipped histogram from its own copy at `_LEVELS` levels, each level spread over its non-empty bins."""
    positions = np.flatnonzero(inside)
    level = np.arange(len(positions)) * _LEVELS // max(len(positions), _LEVELS)
    filled = counts[positions] > 0
    mass = np.bincount(level, counts[positions], _LEVELS)
    bins = np.maximum(np.bincount(level, filled, _LEVELS), 1)
    candidate = np.where(filled, (mass / bins)[level], 0.0)
    p = reference[positions] / reference.sum()
    q = candidate / max(candidate.sum(), 1.0)
    both = (p > 0) & (q > 0)
    return float((p[both] * np.log(p[both] / q[both])).sum() + p[(p > 0) & (q == 0)].sum() * np.log(_BINS))


def _least_squares(activation: Activation) -> tuple[float, float]:
    """Find the clipping with the least squared rounding and clipping error."""

    def error(fraction: float) -> float:
        return float(np.square(rounded(activation.sample, *_cut(activation, fraction)) - activation.sample).mean())

    return _cut(activation, min(_FRACTIONS, key=error))


def _cut(activation: Activation, fraction: float) -> tuple[float, float]:
    limit = float(fraction) * max(-activation.low, activation.high)
    return max(activation.low, -limit), min(activation.high, limit)


def rounded(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Values at the nearest of `_LEVELS` levels between ``low`` and ``high``, which zero is one of."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max(high - low, 1e-30) / (_LEVELS - 1))
    zero = np.rint(-low / scale)
    levels: NDArray[np.float32] = values / scale  # and all that follows in its place, for it is done a thousand times
    np.rint(levels, out=levels)
    np.clip(levels, -zero, _LEVELS - 1 - zero, out=levels)
    levels *= scale
    return levels


RANGES: dict[str, Callable[[Activation], tuple[float, float]]] = {
    "min-max": _whole,
    "percentile 99.99": _percentile(99.99),
    "percentile 99.9": _percentile(99.9),
    "entropy": _entropy,
    "least squares": _least_squares,
}
"""Ways to choose the least and largest value that is represented, by name."""
