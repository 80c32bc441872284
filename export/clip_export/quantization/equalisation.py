"""Channel equalisation: outlier channels of the activations are divided down, the weights behind multiplied up.

Exact in float: the factors meet only linear operations on the way. After SmoothQuant (Xiao et al. 2023,
https://arxiv.org/abs/2211.10438): factor ``largest |activation| ** alpha / largest |weight| ** (1 - alpha)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from clip_export.quantization.layers.linears import Linear, find_linears, with_constants
from clip_export.quantization.ranges import Activation

_LEAST, _MOST = 1e-3, 1e3  # of a factor; beyond, a dead channel would take all of the precision


@dataclass(frozen=True)
class _Joint:
    """Where channels leave one operation and enter linear layers.

    Attributes:
        makers: constants whose last axis holds those channels, as their last ``channels`` entries.
        readers: linear layers that read them, and only them.
    """

    makers: tuple[str, ...]
    readers: tuple[Linear, ...]


def equalised(
    model: onnx.ModelProto, seen: Mapping[str, Activation], alpha: float
) -> tuple[onnx.ModelProto, dict[str, Activation]]:
    """Move factors from activations into weights; return the network and what its layers read now.

    Args:
        model: float32, with `clip_export.quantization.layers.linears.with_plain_linears`.
        seen: what each linear layer reads, on calibration images.
        alpha: 0 leaves all of the difference between channels to the activations, 1 to the weights.
    """
    layers = find_linears(model)
    values = {item.name: item for item in model.graph.initializer}
    changed: dict[str, NDArray[np.float32]] = {}
    now = dict(seen)

    def current(name: str) -> NDArray[np.float32]:
        return changed[name] if name in changed else numpy_helper.to_array(values[name]).copy()

    for joint in _joints(layers, values, _norm_outputs(model)):
        activation = np.maximum.reduce([now[reader.source].channel_largest for reader in joint.readers])
        factor = _factor(activation, [current(f"{reader.name}.weight") for reader in joint.readers], alpha)
        for name in joint.makers:
            value = current(name)
            value[..., -len(factor) :] /= factor
            changed[name] = value
        for reader in joint.readers:
            changed[f"{reader.name}.weight"] = current(f"{reader.name}.weight") * factor[:, None]
        now |= {source: now[source].divided(factor) for source in {reader.source for reader in joint.readers}}
    return with_constants(model, changed), now


def _factor(
    activation: NDArray[np.float32], weights: Sequence[NDArray[np.float32]], alpha: float
) -> NDArray[np.float32]:
    weight = np.maximum.reduce([np.abs(value).max(1) for value in weights])
    factor = np.ones_like(activation)
    alive = (activation > 0) & (weight > 0)
    factor[alive] = activation[alive] ** alpha / weight[alive] ** (1 - alpha)
    factor[alive] /= np.exp(np.log(factor[alive]).mean()) if alive.any() else 1.0
    return np.clip(factor, _LEAST, _MOST).astype(np.float32)


def _norm_outputs(model: onnx.ModelProto) -> dict[str, str]:
    """Name of the tensor that each layer normalisation makes, by the name of its weight."""
    return {node.input[1]: node.output[0] for node in model.graph.node if node.op_type == "LayerNormalization"}


def _joints(
    layers: Mapping[str, Linear], constants: Mapping[str, object], norms: Mapping[str, str]
) -> Iterator[_Joint]:
    """Norm to what reads it, and the value channels of attention (which mixes tokens, not channels) to ``out``.

    Norms behind their residual (BERT) are no joints: the next residual reads them as well as linear layers do.
    """
    prefixes = dict.fromkeys(name.rpartition(".")[0] for name in layers)

    def joint(makers: tuple[str, ...], *readers: str) -> Iterator[_Joint]:
        found = tuple(layers[name] for name in readers if name in layers)
        if makers[0] in norms and norms[makers[0]] not in {layer.source for layer in found}:
            return
        present = tuple(name for name in makers if name in constants)
        if found and len(present) == len(makers):
            yield _Joint(present, found)

    def norm(name: str) -> tuple[str, str]:
        return f"{name}.weight", f"{name}.bias"

    for prefix in prefixes:
        yield from joint(norm(f"{prefix}.norm1"), f"{prefix}.qkv", f"{prefix}.query", f"{prefix}.key_value")
        for maker in ("qkv", "key_value"):
            if f"{prefix}.{maker}" in layers:
                yield from joint(norm(f"{prefix}.{maker}"), f"{prefix}.out")
        yield from joint(norm(f"{prefix}.norm2"), f"{prefix}.fc1")
    yield from joint(norm("vit.pool.norm"), "vit.pool.fc1")
    yield from joint(norm("vit.post_norm"), "vit.pool.key_value")
