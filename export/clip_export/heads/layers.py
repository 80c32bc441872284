"""The layers of a notebook's head in the order in which they follow each other, read off names and shapes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clip_export.heads.checkpoints import Weights
from clip_export.heads.several import BY_HEAD, parts_of
from clip_toolkit.errors import HeadError

LINEAR, BATCH_NORM, LAYER_NORM, SCALE = "linear", "batch norm", "layer norm", "scale"

# More layers than this and trying every order of unordered layers would take too long; nobody has such heads.
_MOST_LAYERS = 7

_SCALES = ("temperature", "logit_scale", "T")
_GIVE_CLASS = "Give the class that has it with --head-class notebook.py:ClassName."


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer.

    Attributes:
        name: before the names of its tensors, such as ``net.0``.
        kind: `LINEAR`, `BATCH_NORM`, `LAYER_NORM` or `SCALE`.
        tensors: by their own names.
    """

    name: str
    kind: str
    tensors: Weights

    @property
    def sizes(self) -> tuple[int, int]:
        """Channels in and out."""
        weight = self.tensors["running_mean" if self.kind == BATCH_NORM else "weight"]
        return int(weight.shape[-1]), int(weight.shape[0])

    @property
    def number(self) -> tuple[str, int] | None:
        """The nn.Sequential that it stands in and its place there, if it does."""
        parent, _, last = self.name.rpartition(".")
        return (parent, int(last)) if last.isdigit() else None


def layers_of(weights: Weights, path: Path) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """Return the layers in order, and scalar parameters by which the logits are multiplied or divided.

    Raises:
        HeadError: something other than Linear, BatchNorm and LayerNorm layers, or layers that form no one chain.
    """
    found = [_layer(name, tensors, path) for name, tensors in _modules(weights).items()]
    scales = tuple(layer for layer in found if layer.kind == SCALE)
    layers = [layer for layer in found if layer.kind != SCALE]
    if not any(layer.kind == LINEAR for layer in layers):
        raise HeadError(f"{path}: expected the weights of Linear layers, found none.")
    return _chain(layers, path), scales


def _modules(weights: Weights) -> dict[str, Weights]:
    modules: dict[str, Weights] = {}
    for name, tensor in weights.items():
        prefix, _, last = name.rpartition(".")
        if last != "num_batches_tracked":
            modules.setdefault(name if tensor.numel() == 1 and last in _SCALES else prefix, {})[last] = tensor
    return modules


def _layer(name: str, tensors: Weights, path: Path) -> Layer:
    kind = _kind(tensors)
    if kind is None:
        listed = ", ".join(f"{f'{name}.{own}'.lstrip('.')} {list(value.shape)}" for own, value in tensors.items())
        raise HeadError(
            f"{path}: expected Linear, BatchNorm and LayerNorm layers, found {listed}, which could be many things. "
            f"{_GIVE_CLASS}"
        )
    return Layer(name, kind, tensors)


def _kind(tensors: Weights) -> str | None:
    names, weight, bias = set(tensors), tensors.get("weight"), tensors.get("bias")
    if len(names) == 1 and names <= set(_SCALES):
        return SCALE
    if {"running_mean", "running_var"} <= names <= {"running_mean", "running_var", "weight", "bias"}:
        return BATCH_NORM if all(value.shape == tensors["running_mean"].shape for value in tensors.values()) else None
    if weight is None or not names <= {"weight", "bias"}:
        return None
    if weight.ndim == 2 and (bias is None or bias.shape == weight.shape[:1]):
        return LINEAR
    return LAYER_NORM if weight.ndim == 1 and bias is not None and bias.shape == weight.shape else None


def _chain(layers: Sequence[Layer], path: Path) -> tuple[Layer, ...]:
    """Find the order in which outputs fit inputs: as saved, by number, else the only one that fits."""
    for order in _likely_orders(layers, keeps_order=path.suffix != ".safetensors"):
        if _fits(order):
            return tuple(order)
    orders: Iterator[tuple[Layer, ...]] = (order for order in itertools.permutations(layers) if _fits(order))
    fitting = list(itertools.islice(orders, 2)) if len(layers) <= _MOST_LAYERS else []
    if len(fitting) != 1:
        raise HeadError(f"{path}: the layers {_why(layers, ambiguous=bool(fitting))}: {_listed(layers)}")
    return fitting[0]


def _likely_orders(layers: Sequence[Layer], *, keeps_order: bool) -> Iterator[Sequence[Layer]]:
    """Yield the orders that a file names; an alphabetical one names none where numbers do not tell all layers."""
    if keeps_order:
        yield layers
    for key in (_by_number, _by_suffix):
        if keeps_order or len(set(map(key, layers))) == len(layers):
            yield sorted(layers, key=key)


def _why(layers: Sequence[Layer], *, ambiguous: bool) -> str:
    if ambiguous:
        return "fit together in several orders; save the head as .pt, which keeps theirs"
    parents = parts_of({f"{layer.name}.weight": layer.tensors["weight"] for layer in layers if layer.kind == LINEAR})
    starts = [layer for layer in layers if layer.kind == LINEAR and layer.sizes[0] == max(e.sizes[0] for e in layers)]
    if len(starts) > 1:
        return (
            f"form no chain. If they are several heads on one feature ({', '.join(parents)}), give the labels of each "
            f"with {BY_HEAD}; else their class with --head-class notebook.py:ClassName"
        )
    return "form no chain; if they are not simply in a row, give their class with --head-class notebook.py:ClassName"


def _listed(layers: Sequence[Layer]) -> str:
    return ", ".join(f"{layer.name} {layer.sizes[0]}->{layer.sizes[1]}" for layer in layers)


def _by_number(layer: Layer) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in layer.name.split("."))


def _by_suffix(layer: Layer) -> tuple[int, ...]:
    """By the number at the end of an attribute's name, as in fc1, bn1, fc2."""
    digits = re.search(r"(\d+)$", layer.name)
    return (int(digits[1]) if digits else 10**6, layer.kind != LINEAR)


def _fits(order: Sequence[Layer]) -> bool:
    return all(first.sizes[1] == second.sizes[0] for first, second in itertools.pairwise(order))


def scaled(weight: Tensor, scales: Sequence[Layer]) -> Tensor:
    """Weights of the last layer, float64, with the logits' scale in them: ``logit_scale`` is a logarithm, as CLIP's."""
    factor = torch.ones((), dtype=torch.float64)
    for layer in scales:
        ((name, value),) = layer.tensors.items()
        factor = (
            factor * value.double().reshape(()).exp() if name == "logit_scale" else factor / value.double().reshape(())
        )
    return weight * factor
