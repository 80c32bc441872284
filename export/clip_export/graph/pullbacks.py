"""The parts of a vision transformer, each with what carries a gradient back through it.

ONNX has no automatic differentiation, so that the formulas stand here as operators that it has. Each function returns
what its part computes, and the product of a gradient with the part's Jacobian: reverse-mode differentiation by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from clip_export.encoders.attention_pooling import attention_weights
from clip_export.graph.blocks import Block, first_token, rotated
from clip_export.graph.vit import AttentionPool
from clip_export.heads.gradients import SLOPES

Pullback = Callable[[Tensor], Tensor]
"""From the gradient in what a part has computed to that in what it has read, each of the shape of the tensor itself."""


def _tanh_gelu_slope(x: Tensor) -> Tensor:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    steepness = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    tanh = torch.tanh(inner)
    return (1 + tanh + x * (1 - tanh * tanh) * steepness) / 2


_SLOPES = {
    "silu": SLOPES["SiLU"],
    "gelu": SLOPES["GELU"],
    "gelu_pytorch_tanh": _tanh_gelu_slope,
    "relu": SLOPES["ReLU"],
}
"""Derivatives of `clip_export.graph.operators.ACTIVATIONS`."""


def norm_pullback(layer: nn.Module, x: Tensor) -> tuple[Tensor, Pullback]:
    """Normalise ``[..., width]``; layers of no normalisation return what they read."""
    if not isinstance(layer, nn.LayerNorm):
        return x, lambda gradient: gradient
    return layer(x), _normalising(x, layer.weight, layer.eps)


def _normalising(x: Tensor, weight: Tensor | None, eps: float) -> Pullback:
    centred = x - x.mean(-1, keepdim=True)
    deviation = ((centred * centred).mean(-1, keepdim=True) + eps).sqrt()
    unit = centred / deviation

    def pull(gradient: Tensor) -> Tensor:
        scaled = gradient if weight is None else gradient * weight
        along = (scaled * unit).mean(-1, keepdim=True)
        pulled: Tensor = (scaled - scaled.mean(-1, keepdim=True) - unit * along) / deviation
        return pulled

    return pull


def mlp_pullback(part: Block | AttentionPool, norm: nn.Module, x: Tensor, activation: str) -> tuple[Tensor, Pullback]:
    """Compute the MLP of a block or a pool with the normalisation before and the residual around it."""
    read, from_norm = norm_pullback(norm, x)
    widened, slope = part.fc1(read), _SLOPES[activation]
    if not (isinstance(part, Block) and part.gated):

        def pull(gradient: Tensor) -> Tensor:
            inner = (gradient @ part.fc2.weight) * slope(widened)
            return gradient + from_norm(inner @ part.fc1.weight)

        return x + part.fc2(part.activation(widened)), pull
    gate, factor = widened.chunk(2, dim=-1)
    opened = part.activation(gate)

    def pull_gated(gradient: Tensor) -> Tensor:
        inner = gradient @ part.fc2.weight
        both = torch.cat([inner * factor * slope(gate), inner * opened], dim=-1)
        return gradient + from_norm(both @ part.fc1.weight)

    return x + part.fc2(opened * factor), pull_gated


def attention_pullback(
    query: Tensor, key: Tensor, value: Tensor, heads: int
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]]:
    """Attend as `clip_export.graph.operators.STANDARD` does; the gradients are those of query, key and value."""
    scale = (query.shape[2] // heads) ** -0.5
    query, key, value = (_split(x, heads) for x in (query * scale, key, value))
    weights = (query @ key.transpose(2, 3)).softmax(-1)

    def pull(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gradient = _split(gradient, heads)
        pulled = gradient @ value.transpose(2, 3)
        scores = weights * (pulled - (pulled * weights).sum(-1, keepdim=True))
        found = (scores @ key * scale, scores.transpose(2, 3) @ query, weights.transpose(2, 3) @ gradient)
        of_query, of_key, of_value = (_joined(x) for x in found)
        return of_query, of_key, of_value

    return _joined(weights @ value), pull


def _split(x: Tensor, heads: int) -> Tensor:
    return x.reshape(-1, x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def block_pullback(block: Block, x: Tensor, rotation: Tensor | None, activation: str) -> tuple[Tensor, Pullback]:
    """Compute a block whose normalisations precede its residuals; the arguments are those of `Block.forward`."""
    read, from_norm = norm_pullback(block.norm1, x)
    mixed, from_mixed = attention_pullback(*block.query_key_value(read, rotation=rotation), block.heads)
    after, from_mlp = mlp_pullback(
        block, block.norm2, (first_token(x) if block.one_token else x) + block.out(mixed), activation
    )
    tokens = x.shape[1]

    def pull(gradient: Tensor) -> Tensor:
        gradient = from_mlp(gradient)
        query, key, value = from_mixed(gradient @ block.out.weight)
        if rotation is not None:
            back = _turned_back(rotation)
            query, key = rotated(query, back[:, : query.shape[1]], block.heads), rotated(key, back, block.heads)
        if not block.one_token:
            return gradient + from_norm(torch.cat([query, key, value], -1) @ block.qkv.weight)
        of_read = torch.cat([key, value], -1) @ block.key_value.weight
        of_read = of_read + _as_first(query @ block.query.weight, tokens)
        return _as_first(gradient, tokens) + from_norm(of_read)

    return after, pull


def _as_first(token: Tensor, tokens: int) -> Tensor:
    return functional.pad(token, (0, 0, 0, tokens - 1))


def _turned_back(rotation: Tensor) -> Tensor:
    """Transpose a rotation of `rotated`: the sines change their halves."""
    cosines, sines = rotation
    return torch.stack([cosines, torch.cat(sines.chunk(2, -1)[::-1], -1)])


def probe_pullback(pool: AttentionPool, x: Tensor, activation: str) -> tuple[Tensor, Pullback]:
    """Pool ``[batch, tokens, width]`` with the encoder's own probe to ``[batch, width]``."""
    key, value = pool.key_value(x).split(pool.width, dim=-1)
    mixed, from_mixed = attention_pullback(pool.query.expand(x.shape[0], -1, -1), key, value, pool.heads)
    pooled, from_mlp = mlp_pullback(pool, pool.norm, pool.out(mixed), activation)

    def pull(gradient: Tensor) -> Tensor:
        _, key, value = from_mixed(from_mlp(gradient[:, None]) @ pool.out.weight)
        pulled: Tensor = torch.cat([key, value], -1) @ pool.key_value.weight
        return pulled

    return pooled[:, 0], pull


def query_pullback(patches: Tensor, query: Tensor, eps: float) -> tuple[Tensor, Pullback]:
    """Pool ``[batch, patches, width]`` as `clip_export.encoders.attention_pooling.attend` does."""
    weights = attention_weights(patches, query, eps)

    def pull(gradient: Tensor) -> Tensor:
        pulled = (patches * gradient[:, None]).sum(-1, keepdim=True)
        scores = weights * (pulled - (weights * pulled).sum(1, keepdim=True)) / math.sqrt(patches.shape[-1])
        return weights * gradient[:, None] + _normalising(patches, None, eps)(scores * query)

    return (weights * patches).sum(1), pull
