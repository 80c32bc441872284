"""From the text tower of a transformers checkpoint to `TextTransformer`: configuration and weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from clip_export.graph.block_weights import Weights, below, block_config, block_weights, named_like_clip, renamed
from clip_export.graph.operators import STANDARD, Operators
from clip_export.graph.text_transformer import TextConfig, TextTransformer

if TYPE_CHECKING:
    from torch import Tensor

    from clip_export.encoders.text import TextEncoder


def canonical_text(tower: TextEncoder, operators: Operators = STANDARD) -> TextTransformer:
    """Rebuild the tower, projection included, as the canonical text transformer in float32.

    Args:
        tower: the text tower.
        operators: spelling of attention and SiLU.
    """
    model = TextTransformer(_config(tower), operators)
    model.load_state_dict(_weights(tower))
    return model.eval().requires_grad_(False)


def _config(tower: TextEncoder) -> TextConfig:
    config, projection = tower.model.config, _projection(tower)
    return TextConfig(
        **block_config(tower.rules.settings(config)),
        **tower.rules.switches(config),
        vocabulary=config.vocab_size,
        context=tower.rules.context(config),
        projection=None if projection is None else projection.out_features,
        projection_bias=projection is not None and projection.bias is not None,
    )


def _projection(tower: TextEncoder) -> nn.Linear | None:
    last = tower.last_layer
    if last is None or tower.rules.transformation is None:
        return last
    return _composed(getattr(tower.model, tower.rules.transformation), last)


def _composed(first: nn.Linear, last: nn.Linear) -> nn.Linear:
    """Return two linear layers as one, the product of their weights."""
    both = nn.Linear(first.in_features, last.out_features)
    with torch.no_grad():
        both.weight.copy_(last.weight.double() @ first.weight.double())
        both.bias.copy_(last.weight.double() @ first.bias.double() + (0 if last.bias is None else last.bias.double()))
    return both


def _weights(tower: TextEncoder) -> Weights:
    source, settings = named_like_clip(tower.model, tower.rules.names), tower.rules.settings(tower.model.config)
    source |= tower.rules.embeddings(tower.model)
    config = _config(tower)
    weights = renamed(source, _NAMES) | {"positions": _positions(source)[config.padding or 0 :]}
    for i in range(settings.depth):
        layer = below(source, f"encoder.layers.{i}.")
        one_token = config.reads_one_token and i == settings.depth - 1
        block = block_weights(layer, settings.activation, one_token)
        weights |= {f"blocks.{i}.{name}": tensor for name, tensor in block.items()}
    if (projection := _projection(tower)) is not None:
        weights |= {f"projection.{name}": tensor.float() for name, tensor in projection.state_dict().items()}
    return weights


def _positions(source: Weights) -> Tensor:
    """Return the position embeddings, with what BERT adds to every token of a single text."""
    positions = source["embeddings.position_embedding.weight"]
    types = source.get("embeddings.token_type_embeddings.weight")
    return positions if types is None else positions + types[0]


_NAMES = {
    "embeddings.token_embedding": "tokens",
    "embeddings.norm": "embedding_norm",
    "final_layer_norm": "final_norm",
}
