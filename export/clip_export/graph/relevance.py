"""The output ``relevance``: which patches speak for the decided label, from the pooling that ends the encoder.

A class token, a probe and a learnt query read the patches by attention, a mean with equal weights. In all of them the
pooled token moves by ``weight * (value - mean value)`` where the score of a patch grows, and the logit by the gradient
times that. The relevance of a patch is this gradient of the logit in its score, where it is positive, times the weight,
summed over the attention heads. docs/decisions.md compares it with other forms.
"""

from __future__ import annotations

import math

import onnx
import torch
from onnx import TensorProto, compose, helper
from torch import Tensor, nn
from torch.nn import functional

from clip_export.encoders.attention_pooling import attention_weights
from clip_export.graph.blocks import Block
from clip_export.graph.network import TOKENS
from clip_export.graph.tracing import EXAMPLE_BATCH, trace
from clip_export.graph.vit import AttentionPool, VisionTransformer
from clip_export.heads.gradients import head_gradient
from clip_export.heads.mlp import VLMtoMLP
from clip_toolkit.spec.tasks import RELEVANCE

Read = tuple[Tensor, Tensor]
"""Weights ``[batch, tokens, heads]``, and what each token then adds to the logit, of the same shape."""


class Relevance(nn.Module):
    """What the last block takes and gives, ``[batch, tokens, width]``, to relevance ``[batch, rows, columns]``.

    The gradient passes the head, the projection and the final normalisation. The MLP behind the attention is left out:
    what a patch adds goes the direct way, along the residual.
    """

    def __init__(self, vit: VisionTransformer, head: VLMtoMLP) -> None:
        """Take the parts that stand behind the last attention."""
        super().__init__()
        self.config, self.rotation = vit.config, vit.rotation
        block = vit.blocks[-1]
        assert isinstance(block, Block)  # the type that a list of modules has lost
        self.block, self.read, self.post_norm, self.pool = block, vit.read, vit.post_norm, vit.pool
        self.pooled, self.query = vit.pooled, vit.query
        self.projection, self.head = vit.projection, head

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Compute the map of the label with the largest logit."""
        gradient = head_gradient(self.head, self.projection(self.read(after)))
        if isinstance(self.projection, nn.Linear):
            gradient = gradient @ self.projection.weight
        maps = [self._map(*found) for found in self._reads(before, after, gradient)]
        side = math.isqrt(self.config.patches)
        return torch.stack(maps).sum(0).reshape(-1, side, side)

    def _map(self, weights: Tensor, added: Tensor) -> Tensor:
        centred = added - (weights * added).sum(1, keepdim=True)
        relevance: Tensor = (weights * functional.relu(weights * centred)).sum(-1)
        return relevance[:, -self.config.patches :]

    def _reads(self, before: Tensor, after: Tensor, gradient: Tensor) -> list[Read]:
        """One for each pooling."""
        if self.pool is not None:
            return [_probe_reads(self.pool, self.post_norm(after), gradient)]
        found = []
        for name, part in zip(self.config.poolings, gradient.chunk(len(self.config.poolings), 1), strict=True):
            pulled = self._before_norms(self.pooled(after, name), part)
            found.append(self._class_reads(before, pulled) if name == "class" else self._patch_reads(after, pulled))
        return found

    def _before_norms(self, token: Tensor, gradient: Tensor) -> Tensor:
        """Carry a gradient back through the final normalisations of a pooled token."""
        tokens = [token]
        for _ in range(1, self.config.post_norms):
            tokens.append(self.post_norm(tokens[-1]))
        for read in reversed(tokens):
            gradient = norm_gradient(self.post_norm, read, gradient)
        return gradient

    def _class_reads(self, before: Tensor, gradient: Tensor) -> Read:
        query, key, value = self.block.query_key_value(self.block.norm1(before), rotation=self.rotation)
        return _attention_reads(query[:, :1], key, value, gradient @ self.block.out.weight, self.config.heads)

    def _patch_reads(self, after: Tensor, gradient: Tensor) -> Read:
        patches = after[:, self.config.prefix :]
        added = (patches * gradient[:, None]).sum(-1, keepdim=True)
        if self.query is None:
            return torch.full_like(added, 1 / self.config.patches), added
        return attention_weights(patches, self.query, self.config.eps), added


def _probe_reads(pool: AttentionPool, tokens: Tensor, gradient: Tensor) -> Read:
    key, value = pool.key_value(tokens).split(pool.width, dim=-1)
    query = pool.query.expand(tokens.shape[0], -1, -1)
    return _attention_reads(query, key, value, gradient @ pool.out.weight, pool.heads)


def _attention_reads(query: Tensor, key: Tensor, value: Tensor, gradient: Tensor, heads: int) -> Read:
    """Of one query, ``[batch, 1, width]``; the gradient is that of what attention gives, ``[batch, width]``."""
    query, key, value, gradient = (x.unflatten(-1, (heads, -1)) for x in (query, key, value, gradient[:, None]))
    scores = (query * key).sum(-1) * query.shape[-1] ** -0.5
    return scores.softmax(1), (value * gradient).sum(-1)


def norm_gradient(norm: nn.LayerNorm, x: Tensor, gradient: Tensor) -> Tensor:
    """Carry a gradient ``[batch, width]`` back through a layer normalisation of ``x`` ``[batch, width]``."""
    scaled = gradient if norm.weight is None else gradient * norm.weight
    centred = x - x.mean(-1, keepdim=True)
    deviation = ((centred * centred).mean(-1, keepdim=True) + norm.eps).sqrt()
    unit = centred / deviation
    along = (scaled * unit).mean(-1, keepdim=True)
    return (scaled - scaled.mean(-1, keepdim=True) - unit * along) / deviation


def add_relevance(model: onnx.ModelProto, vit: VisionTransformer, head: VLMtoMLP) -> None:
    """Add the output to a finished graph, computed in float32 whatever the network before it computes in.

    Args:
        model: of `clip_export.graph.network.network_graph` with ``explained``, perhaps quantized.
        vit: the canonical encoder in it, of standard operators.
        head: the head in it.
    """
    tokens = vit.config.prefix + vit.config.patches
    sizes = (tokens, 1 if vit.config.reads_class_only else tokens)
    examples = {
        _input(name): torch.zeros(EXAMPLE_BATCH, size, vit.config.width)
        for name, size in zip(TOKENS, sizes, strict=True)
    }
    part = compose.add_prefix(trace(Relevance(vit, head).eval(), examples, [RELEVANCE]), f"{RELEVANCE}/part/")
    _join(model, part)


def _input(name: str) -> str:
    return name.partition("/")[2]


def _join(model: onnx.ModelProto, part: onnx.ModelProto) -> None:
    """Append a graph that reads `TOKENS`, whose names have been prefixed."""
    for name, value in zip(TOKENS, part.graph.input, strict=True):
        model.graph.node.append(helper.make_node("Cast", [name], [value.name], value.name, to=TensorProto.FLOAT))
    model.graph.node.extend(part.graph.node)
    (output,) = part.graph.output
    model.graph.node.append(helper.make_node("Identity", [output.name], [RELEVANCE], RELEVANCE))
    model.graph.initializer.extend(part.graph.initializer)
    output.name = RELEVANCE
    model.graph.output.append(output)
    known = {item.domain for item in model.opset_import}
    model.opset_import.extend(item for item in part.opset_import if item.domain not in known)
