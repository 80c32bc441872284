"""One vision transformer for every encoder family.

CLIP, SigLIP and BLIP image towers differ in name tags and in a handful of switches (`ViTConfig`). This module is the
machine they share, written for export: it takes raw uint8 pixels, and holds each exact rewrite that the frozen weights
allow. `clip_export.graph.vit_weights` fills it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from clip_export.graph.blocks import Block, BlockConfig
from clip_export.graph.operators import STANDARD, Operators


@dataclass(frozen=True, kw_only=True)
class ViTConfig(BlockConfig):
    """What distinguishes one image tower from another.

    Attributes:
        size: pixels of either side of the input.
        patch: pixels of either side of a patch.
        pooling: ``class`` (read the class token), ``mean`` (of the patches' tokens, though there is a class token:
            CLIPA) or ``attention`` (a learnt probe attends to all tokens).
        pre_norm: a layer normalisation before the first block (CLIP).
        registers: learnt tokens between the class token and the patches, which nothing reads (DINOv2).
        rotary: queries and keys are turned by where their patch lies (RoPE).
        post_norms: how often the final normalisation is applied to the class token (BLIP: twice).
        projection: channels of the projected feature, or None to return the pooled one.
        projection_bias: whether the projection has a bias.
        takes_pixel_values: the input is normalised float ``[batch, 3, size, size]`` instead of uint8 pixels.
    """

    size: int
    patch: int
    pooling: str
    pre_norm: bool = False
    registers: int = 0
    rotary: bool = False
    post_norms: int = 1
    projection: int | None = None
    projection_bias: bool = False
    takes_pixel_values: bool = False

    @property
    def patches(self) -> int:
        """Number of patches of an image."""
        return (self.size // self.patch) ** 2

    @property
    def has_class_token(self) -> bool:
        """Whether a token that is no patch comes first."""
        return self.pooling != "attention"

    @property
    def prefix(self) -> int:
        """Number of tokens before those of the patches."""
        return self.has_class_token + self.registers

    @property
    def dim(self) -> int:
        """Channels of the feature."""
        return self.projection or self.width


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
        reads_class_only = [config.pooling == "class" and i == config.depth - 1 for i in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config, operators, only) for only in reads_class_only)
        self.post_norm = nn.LayerNorm(config.width, config.eps)
        self.pool = None if config.has_class_token else AttentionPool(config, operators)
        self.projection = (
            nn.Linear(config.width, config.projection, config.projection_bias) if config.projection else nn.Identity()
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode a batch to float32 ``[batch, dim]``."""
        planes = pixels if self.config.takes_pixel_values else pixels.permute(0, 3, 1, 2).float()
        x = self.patch(planes).flatten(2).transpose(1, 2)
        if self.config.prefix:
            x = functional.pad(
                x, (0, 0, self.config.prefix, 0)
            )  # zeros, to which the tokens are added with the positions
        x = self.pre_norm(x + self.positions)
        for block in self.blocks:
            x = block(x, rotation=self.rotation)
        feature: Tensor = self.projection(self._pooled(x))
        return feature

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = self.pool(self.post_norm(x))
        elif self.config.pooling == "mean":
            x = self.post_norm(x[:, self.config.prefix :].mean(dim=1))
        else:
            x = x[:, 0]
            for _ in range(self.config.post_norms):
                x = self.post_norm(x)
        return x


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
