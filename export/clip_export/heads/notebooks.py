"""Bare state_dicts from somebody's notebook: which of their Linear layers follows which is read off their shapes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.reading import Reading
from clip_toolkit.errors import HeadError

# Under these keys people save the head's state_dict beside the optimizer's and an epoch number.
_WRAPPERS = ("state_dict", "model_state_dict", "mlp_head", "head", "model")

# More layers than this and trying every order of unordered layers would take too long; nobody has such heads.
_MOST_LAYERS = 7


def head_from_state_dict(content: Any, reading: Reading, path: Path) -> VLMtoMLP:
    """Build the head whose weights lie in a notebook's file.

    Args:
        content: what the file holds: a state_dict, or a checkpoint with one in it.
        reading: what a state_dict does not tell.
        path: of the file, for messages.

    Raises:
        HeadError: it is no state_dict, or holds anything but one chain of Linear layers.
    """
    return _head(_weights(content, path), reading, path)


def _weights(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state_dict in a notebook's file, which may be a checkpoint with more around it."""
    if isinstance(content, Mapping):
        for key in _WRAPPERS:
            if isinstance(content.get(key), Mapping) and content[key] is not content:
                return _weights(content[key], path)
    if not isinstance(content, Mapping) or not all(_is_weight(name, value) for name, value in content.items()):
        raise HeadError(
            f"{path}: expected a state_dict (names to floating-point tensors), got {type(content).__name__}. "
            "Save it with torch.save(mlp_head.state_dict(), 'head.pt')"
        )
    return dict(content)


def _is_weight(name: object, value: object) -> bool:
    if not (isinstance(name, str) and isinstance(value, Tensor)):
        return False
    return value.is_floating_point() and not value.is_sparse and not value.is_meta


def _head(state: dict[str, Tensor], reading: Reading, path: Path) -> VLMtoMLP:
    weights = {name.removesuffix("weight"): tensor for name, tensor in state.items() if name.endswith("weight")}
    odd = [name for name, tensor in state.items() if tensor.ndim > 2 or not name.endswith(("weight", "bias"))]
    odd += [f"{name}weight" for name, tensor in weights.items() if tensor.ndim != 2]
    odd += [name for name, tensor in state.items() if name.endswith("bias") and not _fits_bias(name, tensor, weights)]
    if odd or not weights:
        raise HeadError(
            f"{path}: expected the weights and biases of Linear layers, found {odd[0] if odd else 'none'}. "
            "Only Linear layers, activations and dropout can be read; save the head alone, without its encoder."
        )
    names = _chain({name: (tensor.shape[1], tensor.shape[0]) for name, tensor in weights.items()}, path)
    sizes = [weights[names[0]].shape[1], *(weights[name].shape[0] for name in names)]
    head = VLMtoMLP(
        sizes[0], sizes[1:-1], sizes[-1], reading.activation, dropout=0.0, feature_norm=reading.feature_norm
    )
    linears = [layer for layer in head.layers if isinstance(layer, torch.nn.Linear)]
    for name, linear in zip(names, linears, strict=True):
        linear.weight.data = weights[name].float()
        linear.bias.data = state.get(f"{name}bias", torch.zeros(linear.out_features)).float()
    head.spec = replace(head.spec, source="state_dict")
    return head.eval()


def _fits_bias(name: str, bias: Tensor, weights: Mapping[str, Tensor]) -> bool:
    weight = weights.get(name.removesuffix("bias"))
    return weight is not None and bias.shape == weight.shape[:1]


def _chain(shapes: Mapping[str, tuple[int, int]], path: Path) -> Sequence[str]:
    """Names of the layers in the order in which outputs fit inputs: as saved, else the only order that fits."""
    by_number = sorted(shapes, key=lambda name: [int(part) if part.isdigit() else -1 for part in name.split(".")])
    for names in (list(shapes), by_number):
        if _fits(names, shapes):
            return names
    names = list(shapes)
    orders = (
        [order for order in itertools.permutations(names) if _fits(order, shapes)] if len(names) <= _MOST_LAYERS else []
    )
    if len(orders) != 1:
        listed = ", ".join(f"{name.rstrip('.')} {inputs}->{outputs}" for name, (inputs, outputs) in shapes.items())
        how = "fit together in several orders; save the head as .pt, which keeps theirs" if orders else "form no chain"
        raise HeadError(f"{path}: the Linear layers {how}: {listed}")
    return orders[0]


def _fits(order: Sequence[str], shapes: Mapping[str, tuple[int, int]]) -> bool:
    return all(shapes[first][1] == shapes[second][0] for first, second in itertools.pairwise(order))
