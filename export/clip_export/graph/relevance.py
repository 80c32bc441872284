"""The output ``relevance``: which parts of an image speak for the decided label, by the gradient in its pixels.

The logit of the decided label is taken at the image and at its mean colour. The integral of the gradient on the way
from one to the other says how much of the difference each pixel makes (integrated gradients: Sundararajan et al. 2017,
https://arxiv.org/abs/1703.01365). It is taken by the midpoint rule with one point, half-way, so that a map costs one
further run forwards and one backwards. docs/decisions.md compares it with other forms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto, compose, helper, numpy_helper
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from clip_export.graph.blocks import Block
from clip_export.graph.pullbacks import Pullback, block_pullback, norm_pullback, probe_pullback, query_pullback
from clip_export.graph.tracing import EXAMPLE_BATCH, trace
from clip_export.graph.vit import VisionTransformer
from clip_export.graph.weight_sources import WeightSources
from clip_export.heads.gradients import head_gradient
from clip_export.heads.mlp import VLMtoMLP
from clip_toolkit.spec.tasks import EXPLAIN, RELEVANCE

_MOST_CELLS = 4  # of a patch, a side
_LOGITS = "logits"
_PREFIX = f"{RELEVANCE}/part/"


def cells_a_side(vit: VisionTransformer) -> int:
    """Return the rows, and columns, of a map: each patch is cut into equal cells, if possible four a side."""
    return vit.config.size // vit.config.patch * math.gcd(vit.config.patch, _MOST_CELLS)


class Relevance(nn.Module):
    """What the encoder takes, and the logits of it, to relevance ``[batch, rows, columns]``."""

    def __init__(self, vit: VisionTransformer, head: VLMtoMLP) -> None:
        """Take an encoder of standard operators, and the head behind it."""
        super().__init__()
        self.vit, self.head, self.config = vit, head, vit.config

    def forward(self, pixels: Tensor, logits: Tensor) -> Tensor:
        """Compute the map of the label with the largest logit, where it is positive."""
        axes = (2, 3) if self.config.takes_pixel_values else (1, 2)
        pixels = pixels.float()
        difference = pixels - pixels.mean(axes, keepdim=True)
        decided = functional.one_hot(logits.argmax(1), logits.shape[1]).float()
        gradient = self._gradient(pixels - difference / 2, decided)
        if not self.config.takes_pixel_values:
            difference = difference.permute(0, 3, 1, 2)
        return functional.relu(self._cells(gradient @ self.vit.patch.weight.flatten(1), difference))

    def _gradient(self, pixels: Tensor, decided: Tensor) -> Tensor:
        """Return the gradient of the decided logit in what the patches become, ``[batch, patches, width]``."""
        x, pull = norm_pullback(self.vit.pre_norm, self.vit.placed(pixels))
        pulls = [pull]
        for block in self.vit.blocks:
            assert isinstance(block, Block)  # the type that a list of modules has lost
            x, pull = block_pullback(block, x, self.vit.rotation, self.config.activation)
            pulls.append(pull)
        read, pull = self._read(x)
        pulls.append(pull)
        gradient = head_gradient(self.head, self.vit.projection(read), decided)
        if isinstance(self.vit.projection, nn.Linear):
            gradient = gradient @ self.vit.projection.weight
        return _pulled(gradient, pulls)[:, self.config.prefix :]

    def _read(self, x: Tensor) -> tuple[Tensor, Pullback]:
        """Pool as `VisionTransformer.read` does."""
        if self.vit.pool is not None:
            x, from_norm = norm_pullback(self.vit.post_norm, x)
            pooled, from_pool = probe_pullback(self.vit.pool, x, self.config.activation)
            return pooled, lambda gradient: from_norm(from_pool(gradient))
        found = [self._pooled(x, name) for name in self.config.poolings]

        def pull(gradient: Tensor) -> Tensor:
            parts = gradient.chunk(len(found), dim=1)
            return torch.stack([back(part) for (_, back), part in zip(found, parts, strict=True)]).sum(0)

        return torch.cat([token for token, _ in found], dim=1), pull

    def _pooled(self, x: Tensor, pooling: str) -> tuple[Tensor, Pullback]:
        """Pool in one way, and normalise."""
        token, pull = self._pooling(x, pooling)
        pulls = [pull]
        for _ in range(self.config.post_norms):
            token, pull = norm_pullback(self.vit.post_norm, token)
            pulls.append(pull)
        return token, lambda gradient: _pulled(gradient, pulls)

    def _pooling(self, x: Tensor, pooling: str) -> tuple[Tensor, Pullback]:
        tokens, prefix, count = x.shape[1], self.config.prefix, self.config.patches
        if pooling == "class":
            return x[:, 0], lambda gradient: functional.pad(gradient[:, None], (0, 0, 0, tokens - 1))
        patches = x[:, prefix:]
        pull: Pullback
        if self.vit.query is None:
            token, pull = patches.mean(1), lambda gradient: (gradient / count)[:, None].expand(-1, count, -1)
        else:
            token, pull = query_pullback(patches, self.vit.query, self.config.eps)
        return token, lambda gradient: functional.pad(pull(gradient), (0, 0, prefix, 0))

    def _cells(self, gradient: Tensor, difference: Tensor) -> Tensor:
        """Sum gradient ``[batch, patches, 3 * patch * patch]`` times difference, in planes, over each cell."""
        patch = self.config.patch
        side, cells = self.config.size // patch, math.gcd(patch, _MOST_CELLS)
        planes = difference[:, :, : side * patch, : side * patch].reshape(-1, 3, side, patch, side, patch)
        gradient = gradient.reshape(-1, side, side, 3, patch, patch).permute(0, 3, 1, 4, 2, 5)
        pixel = patch // cells
        made = (gradient * planes).sum(1).reshape(-1, side * cells, pixel, side * cells, pixel)
        return made.sum((2, 4))


def _pulled(gradient: Tensor, pulls: Sequence[Pullback]) -> Tensor:
    for pull in reversed(pulls):
        gradient = pull(gradient)
    return gradient


class _OfWeights(nn.Module):
    """A module whose parameters are arguments, so that the graph reads them where the file has them already."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.parts, self.names = (module,), names  # in a tuple, lest its parameters count as this module's own

    def forward(self, pixels: Tensor, logits: Tensor, *weights: Tensor) -> Tensor:
        (module,) = self.parts
        relevance: Tensor = functional_call(module, dict(zip(self.names, weights, strict=True)), (pixels, logits))
        return relevance


def add_relevance(model: onnx.ModelProto, vit: VisionTransformer, head: VLMtoMLP) -> None:
    """Add the output to a finished graph, computed in float32 whatever the rest of it computes in.

    It reads the weights that the graph has, and so explains a quantized network by that network's weights. A further
    input `EXPLAIN`, which may be left out, says how many images are explained: with none, maps cost next to nothing.

    Args:
        model: of `clip_export.quantization.layers.linears.with_plain_linears`, perhaps quantized.
        vit: the canonical encoder in it, of standard operators and of the graph's own input.
        head: the head in it.
    """
    config, module = vit.config, Relevance(vit, head).eval()
    pixels = torch.zeros(EXAMPLE_BATCH, config.size, config.size, 3, dtype=torch.uint8)
    examples = {
        "pixel_values" if config.takes_pixel_values else "pixels": pixels,
        _LOGITS: torch.zeros(EXAMPLE_BATCH, head.spec.layers[-1]),
    }
    if config.takes_pixel_values:
        examples["pixel_values"] = pixels.float().permute(0, 3, 1, 2)
    weights = dict(module.named_parameters())
    part = trace(_OfWeights(module, tuple(weights)), examples, [RELEVANCE], weights=weights)
    part = compose.add_prefix(part, _PREFIX)
    WeightSources(model).add(weights, _PREFIX)
    _join(model, part, tuple(examples))


def _join(model: onnx.ModelProto, part: onnx.ModelProto, sources: tuple[str, ...]) -> None:
    """Append a graph, whose weights the model has made, for as many images of each batch as a caller says."""
    graph, (output,) = model.graph, part.graph.output
    start = f"{_PREFIX}first"
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), start))
    graph.initializer.append(numpy_helper.from_array(np.array([np.iinfo(np.int64).max]), EXPLAIN))
    graph.input.append(helper.make_tensor_value_info(EXPLAIN, TensorProto.INT64, [1]))
    for name in sources:
        source = f"{_PREFIX}{name}"
        graph.node.append(helper.make_node("Slice", [name, start, EXPLAIN, start], [source], source))
    graph.node.extend(part.graph.node)
    graph.node.append(helper.make_node("Identity", [output.name], [RELEVANCE], RELEVANCE))
    graph.initializer.extend(part.graph.initializer)
    output.name = RELEVANCE
    output.type.tensor_type.shape.dim[0].dim_param = "explained"
    graph.output.append(output)
    known = {item.domain for item in model.opset_import}
    model.opset_import.extend(item for item in part.opset_import if item.domain not in known)
