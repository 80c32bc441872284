"""One text transformer for every encoder family.

The families' text towers differ in a handful of switches (`TextConfig`). This module is the machine they
share, made of the blocks of the image towers and written for export. `clip_export.graph.text_weights` fills it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clip_export.graph.blocks import Block, BlockConfig
from clip_export.graph.operators import FORBIDDEN, STANDARD, Operators

POOLINGS = ("first", "last", "largest", "end", "mean")
"""Which token a tower reads: the first one (BLIP); the last one, padding or not (SigLIP); the first of those with the
largest number (CLIP of checkpoints that do not know their end mark, which has it); the first end mark (other CLIP); or
the mean of all that are no padding (TIPSv2), which is zero where there are none."""


@dataclass(frozen=True, kw_only=True)
class TextConfig(BlockConfig):
    """What distinguishes one text tower from another.

    Attributes:
        vocabulary: number of tokens that it knows.
        context: most tokens in a text.
        pooling: one of `POOLINGS`.
        end: number of the end mark, for the pooling of this name.
        padding: number of the padding token, which has a position of its own, before the first; the others count
            without it (XLM-RoBERTa). None where every place has the next position.
        causal: a token sees only itself and those before it (CLIP).
        masked: tokens of padding are not seen (BLIP). CLIP's padding stands behind what it reads, and SigLIP's is read.
        embedding_norm: a layer normalisation before the first block (BLIP).
        final_norm: one behind the last (all but BLIP).
        projection: channels of the projected feature; None where nothing is projected.
        projection_bias: whether the projection has a bias.
    """

    vocabulary: int
    context: int
    pooling: str
    end: int = 0
    padding: int | None = None
    causal: bool = False
    masked: bool = False
    embedding_norm: bool = False
    final_norm: bool = True
    projection: int | None = None
    projection_bias: bool = False

    @property
    def reads_one_token(self) -> bool:
        """Whether the feature is that of a single token."""
        return self.pooling != "mean"


class TextTransformer(nn.Module):
    """Tokens, int64 ``[batch, tokens]``, to the projected feature ``[batch, dim]``, float32, not normalised."""

    def __init__(self, config: TextConfig, operators: Operators = STANDARD) -> None:
        """Build the module with uninitialised weights, to be filled by ``load_state_dict``."""
        super().__init__()
        assert config.pooling in POOLINGS, config.pooling
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.context + (config.padding is not None), config.width))
        self.embedding_norm = nn.LayerNorm(config.width, config.eps) if config.embedding_norm else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(config, operators, config.reads_one_token and i == config.depth - 1) for i in range(config.depth)
        )
        self.final_norm = nn.LayerNorm(config.width, config.eps) if config.final_norm else nn.Identity()
        self.projection = (
            nn.Linear(config.width, config.projection, config.projection_bias) if config.projection else nn.Identity()
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode a batch to float32 ``[batch, dim]``.

        Args:
            input_ids: int64 ``[batch, tokens]``, at most the context's number of them.
            attention_mask: int64 ``[batch, tokens]``: 1 where there is text, 0 where padding follows it. Only towers
                that are ``masked`` look at it.
        """
        # Not by the module, whose node would take the name of the output "embedding".
        words = self.tokens.weight[input_ids]
        x = self.embedding_norm(words + self._positions(input_ids))
        place = self._place(input_ids)
        seen, seen_by_read = self._biases(input_ids, attention_mask, place)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x, seen)
        if self.config.reads_one_token:
            x = last(x, seen_by_read, lambda tokens: tokens.gather(1, place.expand(-1, 1, tokens.shape[2])))
            pooled = self.final_norm(x[:, 0])
        else:
            pooled = _mean(self.final_norm(last(x, seen)), attention_mask)
        feature: Tensor = self.projection(pooled)
        return feature

    def _positions(self, input_ids: Tensor) -> Tensor:
        """Return what is added to each token: ``[batch or 1, tokens, width]``."""
        if self.config.padding is None:
            return self.positions[None, : input_ids.shape[1]]
        counted = (input_ids != self.config.padding).long()
        return self.positions[counted.cumsum(dim=1) * counted]

    def _place(self, input_ids: Tensor) -> Tensor:
        """Return the place of the token that is read: int64 ``[batch, 1, 1]``."""
        match self.config.pooling:
            case "first" | "mean":  # of which no place is asked
                place = torch.zeros_like(input_ids[:, :1])
            case "last":
                place = torch.zeros_like(input_ids[:, :1]) + (input_ids.shape[1] - 1)
            case "largest":
                place = input_ids.argmax(dim=1, keepdim=True)
            case _:
                place = (input_ids == self.config.end).int().argmax(dim=1, keepdim=True)
        return place[:, :, None]

    def _biases(self, input_ids: Tensor, attention_mask: Tensor, place: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the biases of every token's scores, ``[batch or 1, 1, tokens, tokens]``, and of the one token's."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        if self.config.causal:
            return _forbidden(places[None] > places[:, None])[None, None], _forbidden(places > place)[:, None]
        if self.config.masked:
            bias = _forbidden(attention_mask == 0)[:, None, None]
            return bias.expand(-1, -1, input_ids.shape[1], -1), bias
        return None, None


def _mean(x: Tensor, attention_mask: Tensor) -> Tensor:
    """Average ``[batch, tokens, width]`` over the tokens that are no padding."""
    counted = attention_mask[:, :, None].float()
    return (x * counted).sum(1) / counted.sum(1).clamp_min(1)


def _forbidden(where: Tensor) -> Tensor:
    return where.float() * FORBIDDEN
