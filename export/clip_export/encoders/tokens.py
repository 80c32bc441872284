"""Features of every depth of an unpatched transformers tower, in one pass.

Each pooled token is normalised without weights. The tower's own final normalisation was trained on its last block
alone, and a cut encoder need not carry it; a linear model on standardised features cannot even tell the two apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clip_export.encoders.attention_pooling import attend
from clip_export.encoders.checkpoint import Checkpoint
from clip_export.encoders.families.family import ImageTower
from clip_export.encoders.feature_names import ATTENTION, TokenFeature
from clip_toolkit.errors import EncoderError


def poolings_of(rules: ImageTower) -> tuple[str, ...]:
    """Return what can be read of the tokens after a block without having learnt anything."""
    return ("mean",) if rules.pooling == "attention" else ("class", "mean")


def check_tokens(tokens: TokenFeature, checkpoint: Checkpoint, depth: int) -> None:
    """Refuse a feature that an encoder of ``depth`` blocks does not have.

    Raises:
        EncoderError: it lies behind the last block, reads a class token where there is none, or patches that only pad;
            or the tower is traced.
    """
    if checkpoint.family.image.naflex or checkpoint.family.image.traced:
        raise EncoderError(
            f"{checkpoint.id}: {checkpoint.family.name} encoders have no {tokens}. Use --feature pooled."
        )
    if tokens.depth > depth:
        raise EncoderError(f"{checkpoint.id}: {tokens} reads tokens after block {tokens.depth}, and it has {depth}.")
    if not set(tokens.poolings) <= {*poolings_of(checkpoint.family.image), ATTENTION}:
        other = replace(tokens, poolings=tuple(name for name in tokens.poolings if name != "class") or ("mean",))
        raise EncoderError(
            f"{checkpoint.id}: {tokens} reads a class token, and {checkpoint.family.name} encoders have none. Use "
            f"--feature {other}."
        )


def all_depths(tower: Any, rules: ImageTower, pixel_values: Tensor) -> Tensor:
    """Pool and normalise the tokens after every block: float32 ``[batch, blocks, poolings, width]``.

    It listens to the blocks: what transformers hands out as the last hidden state may be normalised already.
    """
    states: list[Tensor] = []

    def listen(_block: nn.Module, _inputs: Any, output: Any) -> None:
        states.append(pool_tokens(_tokens(output), tower, rules, poolings_of(rules)))

    hooks = [block.register_forward_hook(listen) for block in _blocks(tower, rules)]
    try:
        tower(pixel_values=pixel_values)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(states, dim=1)


def tokens_after(tower: Any, rules: ImageTower, depth: int, pixel_values: Tensor) -> Tensor:
    """Compute the tokens after a block, and no later block: float32 ``[batch, tokens, width]``."""
    blocks = list(_blocks(tower, rules))
    last, later = blocks[depth - 1], blocks[depth:]
    outputs: list[Any] = []
    hook = last.register_forward_hook(lambda _block, _inputs, output: outputs.append(output))
    try:
        for block in later:
            block.forward = lambda *_args, **_kwargs: outputs[0]
        tower(pixel_values=pixel_values)
    finally:
        hook.remove()
        for block in later:
            del block.forward
    return _tokens(outputs[0])


def _tokens(output: Any) -> Tensor:
    """Return the tokens that a block gives, alone or, in transformers before 5, as the first of several."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


def _blocks(tower: nn.Module, rules: ImageTower) -> Iterator[nn.Module]:
    """Yield the tower's blocks, wherever its family keeps them."""
    for name, module in tower.named_modules():
        like_clip = f"{name}."
        for theirs, ours in rules.names.items():
            like_clip = re.sub(theirs, ours, like_clip)
        if re.fullmatch(r"encoder\.layers\.\d+\.", like_clip):
            yield module


def pool_tokens(
    tokens: Tensor, tower: Any, rules: ImageTower, poolings: Sequence[str], query: Tensor | None = None
) -> Tensor:
    """Pool and normalise the tokens after a block: ``[batch, tokens, width]`` to ``[batch, poolings, width]``.

    Args:
        tokens: of all positions.
        tower: the tower that they are of.
        rules: its family's.
        poolings: what to read.
        query: of ``attention``, float32 ``[width]``.
    """
    eps = rules.settings(tower.config).eps
    patches = tokens[:, ("class" in poolings_of(rules)) + getattr(tower.config, "num_register_tokens", 0) :]
    read = []
    for name in poolings:
        if name == "class":
            read.append(tokens[:, 0])
        elif name == ATTENTION and query is not None:
            read.append(attend(patches, query, eps))
        else:
            read.append(patches.mean(1))
    return functional.layer_norm(torch.stack(read, dim=1), tokens.shape[-1:], eps=eps)
