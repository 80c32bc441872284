"""From the text tower of a transformers checkpoint to `TextTransformer`: configuration and weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clip_export.graph.block_weights import Weights, below, block_settings, block_weights, renamed
from clip_export.graph.operators import STANDARD, Operators
from clip_export.graph.text_transformer import TextConfig, TextTransformer

if TYPE_CHECKING:
    from torch import nn

    from clip_export.encoders.text import TextEncoder

_UNKNOWN_END = 2
"""The ``eos_token_id`` of CLIP checkpoints from before transformers 4.31, which is not that of their tokenizer."""


def canonical_text(tower: TextEncoder, operators: Operators = STANDARD) -> TextTransformer:
    """The tower as the one canonical text transformer, projection included, float32 and in evaluation mode.

    Args:
        tower: the text tower.
        operators: spelling of attention and SiLU.

    Raises:
        EncoderError: an activation that is not supported.
    """
    model = TextTransformer(_config(tower), operators)
    model.load_state_dict(_weights(tower))
    return model.eval().requires_grad_(False)


def _config(tower: TextEncoder) -> TextConfig:
    config, projection = tower.model.config, _projection(tower)
    return TextConfig(
        **block_settings(config, tower.id),
        **_switches(tower.family.name, config),
        vocabulary=config.vocab_size,
        context=config.max_position_embeddings,
        projection=projection.out_features,
        projection_bias=projection.bias is not None,
    )


def _switches(family: str, config: Any) -> dict[str, Any]:
    match family:
        case "clip" if config.eos_token_id == _UNKNOWN_END:
            return {"causal": True, "pooling": "largest"}
        case "clip":
            return {"causal": True, "pooling": "end", "end": config.eos_token_id}
        case "siglip":
            return {"pooling": "last"}
        case _:
            return {
                "masked": True,
                "pooling": "first",
                "norm_behind": True,
                "embedding_norm": True,
                "final_norm": False,
            }


def _projection(tower: TextEncoder) -> nn.Linear:
    """SigLIP's is a part of its text module."""
    return tower.model.head if tower.projection is None else tower.projection


def _weights(tower: TextEncoder) -> Weights:
    source = {name: tensor.detach().float() for name, tensor in tower.model.state_dict().items()}
    config, is_bert = tower.model.config, "embeddings.word_embeddings.weight" in source
    weights = _bert_embeddings(source) if is_bert else _embeddings(source)
    layers = "encoder.layer" if is_bert else "encoder.layers"
    for i in range(config.num_hidden_layers):
        last = i == config.num_hidden_layers - 1
        block = block_weights(below(source, f"{layers}.{i}."), config.hidden_act, last)
        weights |= {f"blocks.{i}.{name}": tensor for name, tensor in block.items()}
    projection = _projection(tower).state_dict().items()
    return weights | {f"projection.{name}": tensor.float() for name, tensor in projection}


def _embeddings(source: Weights) -> Weights:
    weights = renamed(source, {"embeddings.token_embedding": "tokens", "final_layer_norm": "final_norm"})
    return weights | {"positions": source["embeddings.position_embedding.weight"]}


def _bert_embeddings(source: Weights) -> Weights:
    weights = renamed(source, {"embeddings.word_embeddings": "tokens", "embeddings.LayerNorm": "embedding_norm"})
    return weights | {"positions": source["embeddings.position_embeddings.weight"]}
