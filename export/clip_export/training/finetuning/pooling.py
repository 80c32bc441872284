"""Learnt pooling: the tokens that it reads, and the query that learns on them together with a head."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from clip_export.encoders.image import Encoder
from clip_export.training.epochs import Inputs
from clip_export.training.finetuning.options import FinetuningOptions
from clip_export.training.options import TrainingOptions

_QUERY_RATE = 1e-2  # scores do not grow with the encoder, so that one rate suits all; docs/decisions.md


class TokenReader(nn.Module):
    """Normalised pixels ``[batch, 3, size, size]`` to the tokens that a feature of a depth reads, ``[batch, *shape]``.

    Attributes:
        config: the tower's, of transformers.
        preprocessing: the encoder's.
        depth: number of blocks.
        shape: of an image's tokens: how many, and their width.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Take an encoder whose feature is one of a depth."""
        super().__init__()
        assert encoder.tokens is not None
        self.encoder, self.tower = encoder, encoder.tower
        self.config, self.preprocessing = encoder.tower.config, encoder.preprocessing
        self.depth, size = encoder.tokens.depth, encoder.preprocessing.size
        example = torch.zeros(1, 3, size, size, device=next(self.tower.parameters()).device)
        with torch.inference_mode():
            self.shape = tuple(encoder.last_tokens(example).shape[1:])

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Run the blocks."""
        return self.encoder.last_tokens(pixel_values)


class LearntPooling(nn.Module):
    """Rows of `TokensBeside` to what a head reads: the feature ``[batch, dim]``, and behind it what lies beside."""

    def __init__(self, encoder: Encoder, shape: tuple[int, ...]) -> None:
        """Begin with equal weights, which is the mean.

        Args:
            encoder: with a feature of learnt pooling.
            shape: of an image's tokens: how many, and their width.
        """
        super().__init__()
        self.encoder, self.shape = encoder, shape
        self.query = nn.Parameter(torch.zeros(shape[-1]))

    def forward(self, rows: Tensor) -> Tensor:
        """Pool the tokens."""
        count = math.prod(self.shape)
        tokens = rows[:, :count].unflatten(1, self.shape)
        feature = replace(self.encoder, query=self.query).read_tokens(tokens)
        return torch.cat([feature, rows[:, count:]], dim=1)


class TokensBeside:
    """Tokens of some images by number, flat, and behind them features of their texts: ``[images, numbers]``."""

    def __init__(self, tokens: Inputs, texts: Tensor) -> None:
        """Join tokens with texts ``[images, dim]``, where ``dim`` may be 0."""
        self.tokens, self.texts = tokens, texts

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.texts)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        """Those of some images, by number or in a row."""
        return torch.cat([self.tokens[which].flatten(1), self.texts[which]], dim=1)


def query_options(head: TrainingOptions, device: str) -> FinetuningOptions:
    """Return how the query learns: as long as the head did."""
    return FinetuningOptions(0, head.epochs, _QUERY_RATE, device=device)
