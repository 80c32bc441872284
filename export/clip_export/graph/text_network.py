"""A text tower as one network, and that network as ONNX."""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn

from clip_export.encoders.text import TextEncoder
from clip_export.graph.large import check_size
from clip_export.graph.operators import OPERATORS
from clip_export.graph.text_transformer import TextTransformer
from clip_export.graph.text_weights import canonical_text
from clip_export.graph.tracing import EXAMPLE_BATCH, declare_opsets, trace
from clip_export.heads.outputs import unit_length
from clip_toolkit.text.tokenization import INPUTS
from clip_toolkit.text_encoder import TextOutputs

_EXAMPLE_TOKENS = 5  # any number that no other dimension has


class TextNetwork(nn.Module):
    """The canonical text transformer, and its feature normalised."""

    def __init__(self, text: TextTransformer) -> None:
        """Wrap the transformer."""
        super().__init__()
        self.text = text

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens to ``[batch, dim]`` of L2 norm 1, and the same as it comes out of the projection."""
        features = self.text(input_ids, attention_mask)
        return unit_length(features), features


def text_sizes(context: int) -> dict[int, torch.export.Dim]:
    """Return the dimensions of tokens that vary: any batch, and any number of tokens up to the context."""
    return {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("tokens", min=1, max=context)}


def text_examples() -> dict[str, Tensor]:
    """Make an example of each input of a text tower's graph, by name."""
    return {name: torch.ones(EXAMPLE_BATCH, _EXAMPLE_TOKENS, dtype=torch.int64) for name in INPUTS}


def text_graph(tower: TextEncoder, ops: str) -> onnx.ModelProto:
    """Build the ONNX model of a text tower, without metadata.

    Args:
        tower: the text tower.
        ops: a name of `clip_export.graph.operators.OPERATORS`.

    Raises:
        EncoderError: more weights than one file holds.
    """
    network = TextNetwork(canonical_text(tower, OPERATORS[ops])).eval()
    check_size(tower.id, network, others=())
    sizes = dict.fromkeys(INPUTS, text_sizes(tower.context))
    model = trace(network, text_examples(), TextOutputs._fields, sizes)
    model.graph.name = "clip_text"
    declare_opsets(model)
    return model
