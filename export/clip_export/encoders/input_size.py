"""Towers at another input size than the one they were trained at: fewer pixels are fewer tokens, and so less time.

The table of positions is interpolated as transformers does it for a single call (``interpolate_pos_encoding=True``):
bicubic, from the rule of DINO (Caron et al. 2021, https://arxiv.org/abs/2104.14294).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from clip_export.encoders.checkpoint import Checkpoint
from clip_export.encoders.open_clip_processor import OpenClipProcessor
from clip_export.encoders.processors import LARGEST, preprocessing_of
from clip_toolkit.errors import EncoderError


def check_input_size(size: int, tower: Any, checkpoint: Checkpoint) -> None:
    """Refuse a size that is not made of whole patches, and towers that take no other.

    Raises:
        EncoderError: it is such a size or tower.
    """
    if checkpoint.family.image.naflex or checkpoint.family.image.traced:
        raise EncoderError(
            f"{checkpoint.id}: {checkpoint.family.name} encoders have one input size. Leave out --input-size."
        )
    patch = tower.config.patch_size
    below = max(size // patch, 1) * patch
    if size % patch or not patch <= size <= LARGEST:
        nearest = " or ".join(str(side) for side in (below, below + patch) if side <= LARGEST) or str(LARGEST)
        raise EncoderError(
            f"{checkpoint.id}: {size} pixels a side are not made of patches of {patch}. Nearest are {nearest}."
        )


def resize_processor(processor: Any, size: int) -> Any:
    """Return an image processor that makes ``size`` pixels a side; an edge beyond the crop stays in proportion."""
    rule = preprocessing_of(processor)
    if isinstance(processor, OpenClipProcessor):
        return OpenClipProcessor(replace(rule, resize=size, size=size))
    square = {"height": size, "width": size}
    edge = {"shortest_edge": round(rule.resize * size / rule.size)} if rule.mode == "crop" else square
    return type(processor).from_dict(processor.to_dict() | {"size": edge, "crop_size": square})


def resize_positions(tower: Any, size: int) -> None:
    """Give a tower, in place, the table of positions for images of ``size`` pixels a side; the class token's stays."""
    embeddings = tower.embeddings
    table = embeddings.position_embedding
    is_layer = isinstance(table, nn.Embedding)
    patches = (size // tower.config.patch_size) ** 2
    others = (table.num_embeddings if is_layer else table.shape[1]) - embeddings.num_patches
    empty = torch.zeros(1, others + patches, tower.config.hidden_size)
    made = embeddings.interpolate_pos_encoding(empty, size, size).detach().reshape(others + patches, -1)
    if is_layer:
        embeddings.position_embedding = nn.Embedding.from_pretrained(made)
        embeddings.position_ids = torch.arange(len(made))[None]
    else:
        embeddings.position_embedding = nn.Parameter(made[None], requires_grad=False)
    embeddings.num_patches, embeddings.num_positions = patches, len(made)
    embeddings.image_size = tower.config.image_size = size
