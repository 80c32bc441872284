"""One vision transformer for every encoder family.

CLIP, SigLIP and BLIP image towers differ in name tags and in a handful of switches (`ViTConfig`). This module is the
machine they share, written for export: it takes raw uint8 pixels, and holds each exact rewrite that the frozen weights
allow. `clip_export.graph.vit_weights` fills it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from clip_export.encoders.attention_pooling import attend
from clip_export.encoders.feature_names import ATTENTION
from clip_export.graph.blocks import Block, BlockConfig
from clip_export.graph.operators import STANDARD, Operators


@dataclass(frozen=True, kw_only=True)
class ViTConfig(BlockConfig):
    """What distinguishes one image tower from another.

    Attributes:
        size: pixels of either side of the input.
        patch: pixels of either side of a patch.
        poolings: what is read of the tokens, side by side: ``class`` (the class token), ``mean`` (of the patches'
            tokens; CLIPA's in place of the class token), ``attention`` (of features of a depth what a query reads that
            is learnt with the head; else alone: the encoder's own probe attends to all tokens, SigLIP).
        class_token: a token that is no patch comes first.
        pre_norm: a layer normalisation before the first block (CLIP).
        registers: learnt tokens between the class token and the patches, which nothing reads (DINOv2).
        rotary: queries and keys are turned by where their patch lies (RoPE).
        post_norms: how often the final normalisation is applied to the class token (BLIP: twice).
        plain_norm: the final normalisation has no weights, as that of features of a depth.
        projection: channels of the projected feature, or None to return the pooled one.
        projection_bias: whether the projection has a bias.
        resampled: images have grids of any shape, and the table of positions, for ``size``, is resampled to each.
        takes_pixel_values: the input is normalised float ``[batch, 3, size, size]`` instead of uint8 pixels.
    """

    size: int
    patch: int
    poolings: tuple[str, ...]
    class_token: bool
    pre_norm: bool = False
    registers: int = 0
    rotary: bool = False
    post_norms: int = 1
    plain_norm: bool = False
    projection: int | None = None
    projection_bias: bool = False
    resampled: bool = False
    takes_pixel_values: bool = False

    @property
    def patches(self) -> int:
        """Number of patches of an image."""
        return (self.size // self.patch) ** 2

    @property
    def reads_class_only(self) -> bool:
        """Whether no other token is read after the last block."""
        return self.poolings == ("class",)

    @property
    def has_probe(self) -> bool:
        """Whether the encoder's own attention pooling ends it."""
        return self.poolings == (ATTENTION,) and not self.plain_norm

    @property
    def has_query(self) -> bool:
        """Whether a query that is learnt with the head weighs the patches."""
        return ATTENTION in self.poolings and self.plain_norm

    @property
    def prefix(self) -> int:
        """Number of tokens before those of the patches."""
        return self.class_token + self.registers

    @property
    def dim(self) -> int:
        """Channels of the feature."""
        return self.projection or self.width * len(self.poolings)


class VisionTransformer(nn.Module):
    """uint8 pixels ``[batch, size, size, 3]`` to the encoder's feature ``[batch, dim]``, float32.

    The parameters hold rewritten weights: rescaling, mean and standard deviation are folded into ``patch``, the class
    token is added to its position embedding beforehand, and query, key and value share one product.
    """

    def __init__(self, config: ViTConfig, operators: Operators = STANDARD) -> None:
        """Build the module with uninitialised weights, to be filled by ``load_state_dict``."""
        super().__init__()
        self.config = config
        self.patch = nn.Conv2d(3, config.width, config.patch, config.patch)
        self.positions = nn.Parameter(torch.empty(1, config.prefix + config.patches, config.width))
        rotations = torch.empty(2, config.prefix + config.patches, config.width // config.heads)
        self.rotation = nn.Parameter(rotations) if config.rotary else None
        self.pre_norm = nn.LayerNorm(config.width, config.eps) if config.pre_norm else nn.Identity()
        class_only = [config.reads_class_only and i == config.depth - 1 for i in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config, operators, only) for only in class_only)
        self.post_norm = nn.LayerNorm(config.width, config.eps, elementwise_affine=not config.plain_norm)
        self.pool = AttentionPool(config, operators) if config.has_probe else None
        self.query = nn.Parameter(torch.empty(config.width)) if config.has_query else None
        self.projection = (
            nn.Linear(config.width, config.projection, config.projection_bias) if config.projection else nn.Identity()
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode a batch to float32 ``[batch, dim]``."""
        x = self.embed(pixels)
        for block in self.blocks:
            x = block(x, rotation=self.rotation)
        feature: Tensor = self.projection(self.read(x))
        return feature

    def embed(self, pixels: Tensor) -> Tensor:
        """Return what the first block takes, ``[batch, tokens, width]``."""
        embedded: Tensor = self.pre_norm(self.placed(pixels))
        return embedded

    def placed(self, pixels: Tensor) -> Tensor:
        """Return the tokens of the patches, and those before them, with their positions: ``[batch, tokens, width]``."""
        planes = pixels if self.config.takes_pixel_values else pixels.permute(0, 3, 1, 2).float()
        grid = self.patch(planes)
        x = grid.flatten(2).transpose(1, 2)
        if self.config.prefix:
            x = functional.pad(
                x, (0, 0, self.config.prefix, 0)
            )  # zeros, to which the tokens are added with the positions
        positions = resampled(self.positions, *grid.shape[2:]) if self.config.resampled else self.positions
        placed: Tensor = x + positions
        return placed

    def read(self, x: Tensor) -> Tensor:
        """Pool tokens ``[batch, tokens, width]`` and normalise what is read: ``[batch, poolings * width]``."""
        if self.pool is not None:
            pooled: Tensor = self.pool(self.post_norm(x))
            return pooled
        read = [self.pooled(x, name) for name in self.config.poolings]
        for _ in range(self.config.post_norms):
            read = [self.post_norm(token) for token in read]
        return read[0] if len(read) == 1 else torch.cat(read, dim=1)

    def pooled(self, x: Tensor, pooling: str) -> Tensor:
        """Pool tokens in one way, before the normalisation: ``[batch, width]``."""
        if pooling == "class":
            return x[:, 0]
        patches = x[:, self.config.prefix :]
        return patches.mean(1) if self.query is None else attend(patches, self.query, self.config.eps)


class AllDepths(nn.Module):
    """Pixels to the features of every depth, float32 ``[batch, depth, poolings, width]``.

    It is made of a transformer that reads all poolings after its last block; it reads them after every block.
    """

    def __init__(self, vit: VisionTransformer) -> None:
        """Take the parts of a transformer."""
        super().__init__()
        self.vit = vit

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode a batch."""
        x = self.vit.embed(pixels)
        read = []
        for block in self.vit.blocks:
            x = block(x, rotation=self.vit.rotation)
            read.append(self.vit.read(x).unflatten(1, (-1, self.vit.config.width)))
        return torch.stack(read, dim=1)


def resampled(table: Tensor, rows: int, columns: int) -> Tensor:
    """Resize a square table of positions ``[1, side * side, width]`` to ``[1, rows * columns, width]``."""
    side = math.isqrt(table.shape[1])
    wide = _interpolation(columns, side) @ table.reshape(side, side, -1)
    return (_interpolation(rows, side) @ wide.reshape(side, -1)).reshape(1, rows * columns, -1)


def _interpolation(length: int, side: int) -> Tensor:
    """Return weights ``[length, side]`` of a bilinear, antialiased resize of ``side`` values to ``length``.

    A triangle, as wide as the distance of two new values and at least that of two old ones, renormalised at the border:
    ``interpolate(mode="bilinear", antialias=True)`` of PyTorch.
    """
    step = side / length
    centres = (torch.arange(length) + 0.5) * step
    distances = (torch.arange(side) + 0.5 - centres[:, None]).abs() / torch.sym_max(step, 1.0)
    weights: Tensor = (1 - distances).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


class AttentionPool(nn.Module):
    """A learnt probe attends to all tokens (SigLIP): ``[batch, tokens, width]`` to ``[batch, width]``.

    The probe does not depend on the image, so that ``query`` holds it already projected.
    """

    def __init__(self, config: ViTConfig, operators: Operators) -> None:
        """Build the pool with uninitialised weights."""
        super().__init__()
        self.width, self.heads = config.width, config.heads
        self.attention, self.activation = operators.attention, operators.activation(config.activation)
        self.query = nn.Parameter(torch.empty(1, 1, config.width))
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, config.eps)
        self.fc1 = nn.Linear(config.width, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``[batch, tokens, width]`` to ``[batch, width]``."""
        key, value = self.key_value(x).split(self.width, dim=-1)
        query = self.query.expand(x.shape[0], -1, -1)
        x = self.out(self.attention(query, key, value, self.heads, None))[:, 0]
        x = x + self.fc2(self.activation(self.fc1(self.norm(x))))
        return x  # noqa: RET504 (a Tensor, unlike what modules are declared to return)
