"""Image encoder, text tower and one head behind both, as one network, and that network as ONNX."""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_export.graph.large import FLOAT32, check_size
from clip_export.graph.network import Answers, behind_preprocessing, pixel_example, pixel_sizes
from clip_export.graph.operators import OPERATORS
from clip_export.graph.text_network import text_examples, text_sizes
from clip_export.graph.text_weights import canonical_text
from clip_export.graph.towers import image_network
from clip_export.graph.tracing import trace
from clip_toolkit.spec.tasks import OUTPUTS


class FusedNetwork(nn.Module):
    """Canonical encoder and text transformer; the head reads the image's feature and behind it the text's.

    The embedding stays that of the image, so that one file classifies pairs and searches images.
    """

    def __init__(self, vit: nn.Module, text: nn.Module, head: nn.Module, answers: Answers) -> None:
        """Join the parts."""
        super().__init__()
        self.vit, self.text, self.head, self.answers = vit, text, head, answers

    def forward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Pixels and tokens ``[batch, tokens]`` to the task's outputs, as `clip_export.graph.network.Network`."""
        feature = self.vit(pixels)
        both = torch.cat([feature, self.text(input_ids, attention_mask)], dim=1)
        return self.answers.outputs(self.head(both), feature)


def fused_graph(
    encoder: Encoder,
    tower: TextEncoder,
    head: nn.Module,
    input_kind: str,
    *,
    ops: str,
    answers: Answers,
    precision: str = FLOAT32,
) -> onnx.ModelProto:
    """Build the ONNX model of encoder, text tower and head, without metadata.

    Its inputs are ``image`` or ``pixel_values``, ``input_ids`` and ``attention_mask``; any batch, and any number of
    tokens up to the context.

    Args:
        encoder: the image encoder.
        tower: the text tower of the same checkpoint.
        head: from both features, side by side, to logits.
        input_kind: ``image`` (any size, preprocessing inside) or ``pixels`` (normalised ``pixel_values``).
        ops: a name of `clip_export.graph.operators.OPERATORS`.
        answers: what is made of the logits.
        precision: of the file that is made of it.

    Raises:
        EncoderError: more weights than one file of that precision holds.
    """
    operators = OPERATORS[ops]
    vit = image_network(encoder, operators, takes_pixel_values=input_kind == "pixels")
    network = FusedNetwork(vit, canonical_text(tower, operators), head.eval(), answers).eval()
    check_size(encoder.id, network, precision)
    image, tokens = pixel_example(encoder, input_kind), text_examples()
    varying = text_sizes(tower.context)
    sizes = pixel_sizes(encoder, input_kind) | dict.fromkeys(tokens, varying)
    body = trace(network, image | tokens, OUTPUTS[answers.task], sizes)
    return behind_preprocessing(body, encoder, input_kind)
