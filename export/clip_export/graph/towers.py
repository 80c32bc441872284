"""The image tower as the module whose trace becomes the graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clip_export.encoders.image import Encoder
from clip_export.graph.operators import Operators
from clip_export.graph.vit_weights import canonical_vit


class TracedTower(nn.Module):
    """uint8 pixels ``[batch, size, size, 3]`` to the feature ``[batch, dim]`` by the tower's own modules.

    The normalisation stays in front, since convolutions that pad cannot take it in.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, encoder: Encoder, takes_pixel_values: bool) -> None:
        """Take the tower in the form that is traced."""
        super().__init__()
        assert encoder.family.image.traced is not None
        self.tower, self.takes_pixel_values = encoder.family.image.traced(encoder.tower), takes_pixel_values
        rule = encoder.preprocessing
        mean, std = (torch.tensor(value, dtype=torch.float64) for value in (rule.mean, rule.std))
        self.register_buffer("scale", (rule.scale / std).float().view(3, 1, 1))
        self.register_buffer("shift", (mean / std).float().view(3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode a batch of ``pixels``, or of normalised ``pixel_values`` ``[batch, 3, size, size]``."""
        if not self.takes_pixel_values:
            pixels = pixels.permute(0, 3, 1, 2).float() * self.scale - self.shift
        feature: Tensor = self.tower(pixels)
        return feature


def image_network(encoder: Encoder, operators: Operators, takes_pixel_values: bool = False) -> nn.Module:
    """Return the canonical vision transformer, or the tower itself where it is of another kind.

    Args:
        encoder: the encoder.
        operators: spelling of attention and SiLU in the canonical one.
        takes_pixel_values: expect normalised ``pixel_values``.
    """
    if encoder.family.image.traced is not None:
        return TracedTower(encoder, takes_pixel_values).eval()
    return canonical_vit(encoder, operators, takes_pixel_values)
