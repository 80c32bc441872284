"""The MLP head: `VLMtoMLP`, and what is kept beside its weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from clip_export.heads.activations import ACTIVATIONS
from clip_export.heads.outputs import unit_length
from clip_toolkit.errors import HeadError
from clip_toolkit.spec.classifier import HeadSpec


class VLMtoMLP(nn.Module):
    """A multi-layer perceptron from an encoder's feature to logits.

    By default Linear -> ReLU -> Dropout -> Linear. ``hidden_dim`` may name no hidden layer (a linear head) or several.
    """

    def __init__(
        self,
        input_dim: int = 768,
        hidden_dim: int | Sequence[int] = 256,
        output_dim: int = 2,
        activation: str = "relu",
        dropout: float = 0.1,
        *,
        feature_norm: bool = False,
    ) -> None:
        """Build the head with PyTorch's default initialisation.

        Args:
            input_dim: channels of the encoder's feature.
            hidden_dim: channels of the hidden layer, or of each of several; empty for a linear head.
            output_dim: number of classes.
            activation: one of `clip_export.heads.activations.ACTIVATIONS`, after each hidden layer.
            dropout: probability, after each activation.
            feature_norm: divide the feature by its L2 norm first.

        Raises:
            HeadError: an unknown activation, or a size or probability out of range.
        """
        super().__init__()
        hidden = (hidden_dim,) if isinstance(hidden_dim, int) else tuple(hidden_dim)
        self.spec = HeadSpec((input_dim, *hidden, output_dim), activation, dropout, feature_norm)
        _check(self.spec)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((input_dim, *hidden)):
            layers += [nn.Linear(inputs, outputs), getattr(nn, ACTIVATIONS[activation])(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(self.spec.layers[-2], output_dim))

    @classmethod
    def from_spec(cls, spec: HeadSpec) -> VLMtoMLP:
        """Build a head of a given architecture."""
        sizes = spec.layers
        return cls(sizes[0], sizes[1:-1], sizes[-1], spec.activation, spec.dropout, feature_norm=spec.feature_norm)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``[batch, input_dim]`` to logits ``[batch, output_dim]``."""
        logits: Tensor = self.layers(unit_length(features) if self.spec.feature_norm else features)
        return logits

    @property
    def first(self) -> nn.Linear:
        """The layer that reads the features."""
        return self._linear(0)

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the logits; of a linear head also the first."""
        return self._linear(-1)

    def _linear(self, index: int) -> nn.Linear:
        layer = self.layers[index]
        assert isinstance(layer, nn.Linear)
        return layer


def _check(spec: HeadSpec) -> None:
    if spec.activation not in ACTIVATIONS:
        raise HeadError(f"head: expected an activation of {', '.join(ACTIVATIONS)}, got {spec.activation!r}")
    if min(spec.layers) < 1:
        raise HeadError(f"head: every layer needs at least 1 channel, got {spec.layers}")
    if not 0 <= spec.dropout < 1:
        raise HeadError(f"head: expected a dropout probability from 0 to below 1, got {spec.dropout}")
