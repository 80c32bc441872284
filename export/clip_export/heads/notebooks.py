"""Bare state_dicts from somebody's notebook as a head that can be exported: layers in a row, and what lies between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from clip_export.heads.activations import ACTIVATIONS
from clip_export.heads.checkpoints import Weights
from clip_export.heads.layers import BATCH_NORM, LINEAR, SCALE, Layer, layers_of, scaled
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.outputs import unit_length
from clip_export.heads.reading import Reading
from clip_toolkit.errors import HeadError
from clip_toolkit.spec.classifier import HeadSpec
from clip_toolkit.spec.tasks import SINGLE_LABEL


class LayeredHead(nn.Module):
    """A head of layers in a row that are more than Linear layers with one activation between them.

    Attributes:
        spec: its sizes and what it is made of.
        layers: the layers.
    """

    def __init__(self, layers: Sequence[nn.Module], spec: HeadSpec) -> None:
        """Put layers in a row."""
        super().__init__()
        self.spec, self.layers = spec, nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``[batch, dim]`` to logits ``[batch, outputs]``."""
        logits: Tensor = self.layers(unit_length(features) if self.spec.feature_norm else features)
        return logits


def head_from_state_dict(weights: Weights, reading: Reading, path: Path) -> VLMtoMLP | LayeredHead:
    """Build the head whose weights are in a notebook's file.

    BatchNorm layers are folded into the Linear layers beside them, in float64. A single output stands for two labels:
    the logits ``[0, z]``, whose softmax is the sigmoid of ``z``.

    Args:
        weights: of the head, by name.
        reading: what a state_dict does not tell.
        path: of the file, for messages.

    Raises:
        HeadError: it holds anything but one chain of Linear, BatchNorm and LayerNorm layers.
    """
    layers, scales = layers_of(weights, path)
    if reading.norm_position is not None and all(layer.kind == LINEAR for layer in layers):
        raise HeadError(f"{path}: --norm-position is about BatchNorm and LayerNorm, and this head has neither.")
    steps = list(_steps(layers, reading))
    modules = _folded([step if isinstance(step, str) else _module(step) for step in steps])
    last = modules[-1]
    if isinstance(last, nn.Linear):
        last.weight.data = scaled(last.weight.data, scales)
        last.bias.data = scaled(last.bias.data, scales)
    elif scales:
        raise HeadError(f"{path}: the logits' scale stands behind a normalisation. Give the class with --head-class.")
    words = [_word(step) for step in steps] + [_scale_word(layer) for layer in scales]
    if reading.task == SINGLE_LABEL and isinstance(last, nn.Linear) and last.out_features == 1:
        modules[-1] = _two_logits(last)
        words.append("as the logits [0, z] of two labels")
    return _built(modules, words, reading)


def _steps(layers: Sequence[Layer], reading: Reading) -> Iterator[Layer | str]:
    """Layers and, as text, the activation between those that have one between them."""
    linears = [i for i, layer in enumerate(layers) if layer.kind == LINEAR]
    yield from layers[: linears[0]]
    for first, second in pairwise([*linears, len(layers)]):
        norms = layers[first + 1 : second]
        yield layers[first]
        if second == len(layers):
            yield from norms
            return
        before = [norm for norm in norms if _is_before(layers[first], norm, reading)]
        yield from before
        if _has_room(layers[first : second + 1]):
            yield reading.activation
        yield from (norm for norm in norms if norm not in before)


def _is_before(linear: Layer, norm: Layer, reading: Reading) -> bool:
    """Whether a normalisation stands before the activation: where it is numbered, right behind the Linear layer."""
    if reading.norm_position is not None:
        return reading.norm_position == "before"
    if linear.number is None or norm.number is None or linear.number[0] != norm.number[0]:
        return True
    return norm.number[1] == linear.number[1] + 1


def _has_room(layers: Sequence[Layer]) -> bool:
    """Whether an nn.Sequential's numbers leave room for an activation between layers that stand in it."""
    numbers = [layer.number for layer in layers]
    if any(number is None for number in numbers) or len({number[0] for number in numbers if number}) > 1:
        return True
    return any(second[1] - first[1] > 1 for first, second in pairwise(number for number in numbers if number))


def _module(layer: Layer) -> nn.Module:
    """Build the layer as a module in float64."""
    (inputs, outputs), tensors = layer.sizes, {name: value.double() for name, value in layer.tensors.items()}
    if layer.kind == LINEAR:
        module: nn.Module = nn.Linear(inputs, outputs)
        tensors.setdefault("bias", torch.zeros(outputs, dtype=torch.float64))
    elif layer.kind == BATCH_NORM:
        module = nn.BatchNorm1d(outputs, affine="weight" in tensors)
        tensors["num_batches_tracked"] = torch.tensor(0)
    else:
        module = nn.LayerNorm(outputs)
    module.double().load_state_dict(tensors)
    return module.eval()


def _folded(modules: Sequence[nn.Module | str]) -> list[nn.Module]:
    """Modules with each BatchNorm folded into a Linear layer beside it, and activations in place of their names."""
    found: list[nn.Module] = []
    pending: nn.BatchNorm1d | None = None
    for item in modules:
        module = getattr(nn, ACTIVATIONS[item])() if isinstance(item, str) else item
        if isinstance(module, nn.BatchNorm1d) and found and isinstance(found[-1], nn.Linear):
            scale, shift = _affine(module)
            found[-1].weight.data *= scale[:, None]
            found[-1].bias.data = found[-1].bias.data * scale + shift
            continue
        if pending is not None and isinstance(module, nn.Linear):
            scale, shift = _affine(pending)
            module.bias.data += module.weight.data @ shift
            module.weight.data *= scale
            pending = None
        elif pending is not None:
            found.append(pending)
            pending = None
        if isinstance(module, nn.BatchNorm1d):
            pending = module
        else:
            found.append(module)
    return found if pending is None else [*found, pending]


def _affine(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Scale and shift, float64, that a BatchNorm in evaluation mode amounts to."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.data
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias.data


def _two_logits(last: nn.Linear) -> nn.Linear:
    both = nn.Linear(last.in_features, 2).double()
    both.weight.data = torch.cat([torch.zeros_like(last.weight.data), last.weight.data])
    both.bias.data = torch.cat([torch.zeros_like(last.bias.data), last.bias.data])
    return both


def _built(modules: Sequence[nn.Module], words: Sequence[str], reading: Reading) -> VLMtoMLP | LayeredHead:
    linears = [module for module in modules if isinstance(module, nn.Linear)]
    sizes = (linears[0].in_features, *(linear.out_features for linear in linears))
    plain = VLMtoMLP(
        sizes[0], sizes[1:-1], sizes[-1], reading.activation, dropout=0.0, feature_norm=reading.feature_norm
    )
    spec = replace(plain.spec, source="state_dict", form=_form(words, sizes, reading.activation))
    if [type(module) for module in modules] != [type(m) for m in plain.layers if not isinstance(m, nn.Dropout)]:
        return LayeredHead(modules, spec).float().eval()
    plain.spec = spec
    for mine, theirs in zip((m for m in plain.layers if isinstance(m, nn.Linear)), linears, strict=True):
        mine.load_state_dict({name: value.float() for name, value in theirs.state_dict().items()})
    return plain.eval()


def _form(words: Sequence[str], sizes: Sequence[int], activation: str) -> str:
    """Describe the layers in words, or return nothing if sizes and one activation say it all."""
    plain = f" -> {activation} -> ".join(map(str, sizes[1:]))
    return "" if " -> ".join(words) == plain else " -> ".join(words)


def _word(step: Layer | str) -> str:
    if isinstance(step, str):
        return step
    return str(step.sizes[1]) if step.kind == LINEAR else step.kind


def _scale_word(layer: Layer) -> str:
    ((name, value),) = layer.tensors.items()
    assert layer.kind == SCALE
    return f"times exp({name} {value.item():.5g})" if name == "logit_scale" else f"divided by {name} {value.item():.5g}"
