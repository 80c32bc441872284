"""Encoder and head as one network, and that network as ONNX."""

from __future__ import annotations

import onnx
import torch
from onnx import compose
from torch import Tensor, nn

from clip_export.encoder import Encoder
from clip_export.onnx_export import EXAMPLE_BATCH, check_size, declare_opsets, exported
from clip_export.operators import OPERATORS
from clip_export.preprocess_graph import preprocess_graph
from clip_export.tasks import probabilities
from clip_export.vit_weights import canonical_vit
from clip_toolkit.tasks import OUTPUTS, REGRESSION, SINGLE_LABEL


class Network(nn.Module):
    """Canonical encoder, head, what the task makes of its outputs, and the normalised embedding."""

    def __init__(self, vit: nn.Module, head: nn.Module, task: str = SINGLE_LABEL, temperature: float = 1.0) -> None:
        """Join an encoder and a head; the logits are divided by ``temperature`` before they become probabilities."""
        super().__init__()
        self.vit, self.head, self.task, self.temperature = vit, head, task, temperature

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels to the task's outputs, float32: ``[batch, classes]`` each, and ``[batch, dim]`` of L2 norm 1."""
        feature = self.vit(pixels)
        logits = self.head(feature)
        embedding = nn.functional.normalize(feature, dim=-1)
        if self.task == REGRESSION:
            return logits, embedding
        return probabilities(logits, self.task, self.temperature), logits, embedding


def network_graph(
    encoder: Encoder,
    head: nn.Module,
    input_kind: str,
    ops: str,
    *,
    task: str = SINGLE_LABEL,
    temperature: float = 1.0,
) -> onnx.ModelProto:
    """The ONNX model of encoder and head, without metadata.

    Args:
        encoder: the encoder.
        head: from its feature to logits.
        input_kind: ``image`` (any size, preprocessing inside) or ``pixels`` (normalised ``pixel_values``).
        ops: a name of `clip_export.operators.OPERATORS`.
        task: one of `clip_toolkit.tasks.TASKS`, which decides the outputs.
        temperature: as in `Network`.
    """
    check_size(encoder.id, encoder.tower, head)
    vit = canonical_vit(encoder, OPERATORS[ops], takes_pixel_values=input_kind == "pixels")
    network = Network(vit, head.eval(), task, temperature).eval()
    side = encoder.preprocessing.size
    if input_kind == "pixels":
        values = torch.zeros(EXAMPLE_BATCH, 3, side, side)
        return exported(network, {"pixel_values": values}, OUTPUTS[task])
    example = torch.zeros(EXAMPLE_BATCH, side, side, 3, dtype=torch.uint8)
    body = exported(network, {"pixels": example}, OUTPUTS[task])
    model = compose.merge_models(preprocess_graph(encoder.preprocessing), body, io_map=[("pixels", "pixels")])
    model.graph.name = "clip_classifier"
    declare_opsets(model)
    return model


def encoder_graph(encoder: Encoder) -> onnx.ModelProto:
    """The ONNX model of the encoder alone: ``pixels``, uint8 ``[batch, size, size, 3]``, to its ``feature``."""
    vit = canonical_vit(encoder, OPERATORS["ort"], takes_pixel_values=False).eval()
    side = encoder.preprocessing.size
    example = torch.zeros(EXAMPLE_BATCH, side, side, 3, dtype=torch.uint8)
    return exported(vit, {"pixels": example}, ("feature",))
