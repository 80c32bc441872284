"""An image tower cut in two: blocks that stay as they are, and above them those that learn.

The halves share their weights with the transformers modules, so that what is learnt is in the encoder at once. The
blocks are spelt out here, from the same submodules, rather than called: the last one need not compute the tokens that
nobody reads, and their call differs between the versions of transformers. None has dropout.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from clip_export.encoders.image import Encoder
from clip_toolkit.errors import EncoderError


def check_blocks(encoder: Encoder, blocks: int) -> None:
    """Refuse to cut an encoder where it has no block.

    Raises:
        EncoderError: ``blocks`` is not between 1 and the number that it has, or the family or feature cannot be
            fine-tuned.
    """
    if not encoder.family.image.can_finetune:
        raise EncoderError(f"{encoder.id}: {encoder.family.name} encoders cannot be fine-tuned. Leave out --unfreeze.")
    depth = depth_read(encoder)
    if not 1 <= blocks <= depth:
        below = "" if encoder.tokens is None else f" below {encoder.feature}"
        raise EncoderError(f"{encoder.id}: cannot unfreeze {blocks} blocks, it has {depth}{below}. Give 1 to {depth}.")


def depth_read(encoder: Encoder) -> int:
    """Return how many blocks the encoder's feature is made of."""
    return len(encoder.tower.encoder.layers) if encoder.tokens is None else encoder.tokens.depth


class LowerHalf(nn.Module):
    """Normalised pixels ``[batch, 3, size, size]`` to the hidden states below the last blocks, ``[batch, *shape]``.

    Attributes:
        config: the tower's, of transformers.
        preprocessing: the encoder's.
        depth: number of blocks.
        shape: of an image's hidden states: tokens and width.
    """

    def __init__(self, encoder: Encoder, blocks: int) -> None:
        """Take everything but the last ``blocks`` blocks.

        Raises:
            EncoderError: the encoder does not have so many.
        """
        super().__init__()
        check_blocks(encoder, blocks)
        tower = encoder.tower
        self.config, self.preprocessing = tower.config, encoder.preprocessing
        self.embeddings = tower.embeddings
        self.pre_norm = getattr(tower, "pre_layrnorm", nn.Identity())
        self.depth = depth_read(encoder) - blocks
        self.blocks = nn.ModuleList(tower.encoder.layers[: self.depth])
        self.packed = encoder.family.image.packed_attention
        tokens = tower.embeddings.num_patches + (encoder.family.image.pooling == "class")
        self.shape = (tokens, tower.config.hidden_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Run the lower blocks."""
        hidden: Tensor = self.pre_norm(self.embeddings(pixel_values))
        for block in self.blocks:
            hidden = _block(block, hidden, self.packed)
        return hidden


class UpperHalf(nn.Module):
    """Hidden states ``[batch, tokens, width]`` to the encoder's feature ``[batch, dim]``, which may be of a depth."""

    def __init__(self, encoder: Encoder, blocks: int) -> None:
        """Take the last ``blocks`` blocks that the feature is made of, and what it reads above them.

        Raises:
            EncoderError: the encoder does not have so many.
        """
        super().__init__()
        check_blocks(encoder, blocks)
        tower, rules, depth = encoder.tower, encoder.family.image, depth_read(encoder)
        self.blocks = nn.ModuleList(tower.encoder.layers[depth - blocks : depth])
        self.packed = rules.packed_attention
        self.read_tokens = None if encoder.tokens is None else encoder.read_tokens
        whole = encoder.tokens is None
        self.post_norm = tower.post_layernorm if whole else nn.Identity()
        self.pool = tower.head if whole and rules.pooling == "attention" else None
        self.projection = encoder.projection if encoder.projection is not None else nn.Identity()
        self.post_norms = 1 if encoder.reads_first_token else rules.post_norms

    def forward(self, hidden: Tensor) -> Tensor:
        """Run the upper blocks."""
        *others, last = self.blocks
        for block in others:
            hidden = _block(block, hidden, self.packed)
        hidden = _block(last, hidden, self.packed, class_only=self.pool is None and self.read_tokens is None)
        feature: Tensor = self.projection(self._pooled(hidden))
        return feature

    def _pooled(self, hidden: Tensor) -> Tensor:
        if self.read_tokens is not None:
            return self.read_tokens(hidden)
        if self.pool is not None:
            pooled: Tensor = self.pool(self.post_norm(hidden))
            return pooled
        token = hidden[:, 0]
        for _ in range(self.post_norms):
            token = self.post_norm(token)
        return token


def _block(block: Any, hidden: Tensor, packed: bool, class_only: bool = False) -> Tensor:
    """Run a transformers block on ``[batch, tokens, width]``; with ``class_only`` to ``[batch, 1, width]``.

    The class token asks all tokens, but only its own answer is read after the last block. Leaving the others out
    changes neither that nor any gradient.
    """
    normed = block.layer_norm1(hidden)
    count = 1 if class_only else hidden.shape[1]
    hidden = hidden[:, :count] + _attention(block.self_attn, normed, count, packed)
    widened: Tensor = block.mlp(block.layer_norm2(hidden))
    return hidden + widened


def _attention(attention: Any, normed: Tensor, count: int, packed: bool) -> Tensor:
    """Let the first ``count`` tokens attend to all of them."""
    if packed:
        query, key, value = _packed(attention.qkv, normed, count)
        out = attention.projection
    else:
        query, key, value = attention.q_proj(normed[:, :count]), attention.k_proj(normed), attention.v_proj(normed)
        out = attention.out_proj
    heads = attention.num_heads
    split = [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value)]
    answered: Tensor = out(functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))
    return answered


def _packed(linear: nn.Linear, normed: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    if count == normed.shape[1]:
        query, key, value = linear(normed).chunk(3, dim=-1)
        return query, key, value
    width = normed.shape[-1]
    weights, biases = (part.split([width, 2 * width]) for part in (linear.weight, linear.bias))
    query = functional.linear(normed[:, :count], weights[0], biases[0])
    key, value = functional.linear(normed, weights[1], biases[1]).chunk(2, dim=-1)
    return query, key, value
