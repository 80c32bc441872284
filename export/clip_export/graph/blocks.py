"""The transformer block that all towers share, of images and of texts alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clip_export.graph.operators import Operators

Pick = Callable[[Tensor], Tensor]
"""From all tokens, ``[batch, tokens, width]``, to the one that the tower reads, ``[batch, 1, width]``."""


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """What distinguishes the blocks of one tower from those of another.

    Attributes:
        width: channels of a token.
        heads: attention heads.
        hidden: channels inside the MLP of a block.
        depth: number of blocks.
        activation: of `clip_export.graph.operators.ACTIVATIONS`.
        eps: of every layer normalisation.
        gated: the activation is a factor: a second linear layer of ``hidden`` outputs, packed behind the first, is
            multiplied by it (DINOv3).
        norm_behind: each layer normalisation follows its residual (BERT, and so BLIP's texts) instead of preceding it.
    """

    width: int
    heads: int
    hidden: int
    depth: int
    activation: str
    eps: float
    gated: bool = False
    norm_behind: bool = False


def first_token(x: Tensor) -> Tensor:
    """Return the class token of ``[batch, tokens, width]``, as ``[batch, 1, width]``."""
    return x[:, :1]


def rotated(x: Tensor, rotation: Tensor, heads: int) -> Tensor:
    """Turn the channels of each head in pairs, the first half with the second: RoPE (arXiv:2104.09864).

    Args:
        x: ``[batch, tokens, width]``.
        rotation: cosines, and sines with the sign that their half of the channels gets, ``[2, tokens, width / heads]``.
        heads: number of heads.
    """
    split = x.reshape(-1, x.shape[1], heads, x.shape[2] // heads)
    first, second = split.chunk(2, dim=-1)
    cosines, sines = rotation[:, :, None]
    turned: Tensor = split * cosines + torch.cat([second, first], dim=-1) * sines
    return turned.reshape(-1, x.shape[1], x.shape[2])


class Block(nn.Module):
    """Attention and MLP, each with a layer normalisation and around a residual.

    With ``one_token`` (the last block of a tower that reads one token) only that token is computed:
    ``[batch, tokens, width]`` to ``[batch, 1, width]``.
    """

    def __init__(self, config: BlockConfig, operators: Operators, one_token: bool) -> None:
        """Build the block with uninitialised weights."""
        super().__init__()
        self.width, self.heads = config.width, config.heads
        self.one_token, self.norm_behind = one_token, config.norm_behind
        self.attention, self.activation = operators.attention, operators.activation(config.activation)
        self.norm1 = nn.LayerNorm(config.width, config.eps)
        if one_token:
            self.query, self.key_value = (
                nn.Linear(config.width, config.width),
                nn.Linear(config.width, 2 * config.width),
            )
        else:
            self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm2 = nn.LayerNorm(config.width, config.eps)
        self.gated = config.gated
        self.fc1 = nn.Linear(config.width, (1 + config.gated) * config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.width)

    def forward(
        self, x: Tensor, bias: Tensor | None = None, pick: Pick = first_token, rotation: Tensor | None = None
    ) -> Tensor:
        """Run the block.

        Args:
            x: ``[batch, tokens, width]``.
            bias: added to the attention scores, as in `clip_export.graph.operators.Operators.attention`.
            pick: with ``one_token``, which one; with a rotation the first.
            rotation: what turns queries and keys, as in `rotated`.
        """
        read = x if self.norm_behind else self.norm1(x)
        if self.one_token:
            x = pick(x)
        query, key, value = self.query_key_value(read, pick, rotation)
        x = x + self.out(self.attention(query, key, value, self.heads, bias))
        if self.norm_behind:
            x = self.norm1(x)
            x = self.norm2(x + self._mlp(x))
        else:
            x = x + self._mlp(self.norm2(x))
        return x

    def query_key_value(
        self, read: Tensor, pick: Pick = first_token, rotation: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what attention takes of normalised tokens; the arguments are those of `forward`."""
        if self.one_token:
            key, value = self.key_value(read).split(self.width, dim=-1)
            query = self.query(pick(read))
        else:
            query, key, value = self.qkv(read).split(self.width, dim=-1)
        if rotation is not None:
            query = rotated(query, rotation[:, : query.shape[1]], self.heads)
            key = rotated(key, rotation, self.heads)
        return query, key, value

    def _mlp(self, x: Tensor) -> Tensor:
        if self.gated:
            gate, widened = self.fc1(x).chunk(2, dim=-1)
            widened = self.activation(gate) * widened
        else:
            widened = self.activation(self.fc1(x))
        narrowed: Tensor = self.fc2(widened)
        return narrowed
