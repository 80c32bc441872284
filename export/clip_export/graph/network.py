"""Encoder and head as one network, and that network as ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import onnx
import torch
from onnx import compose
from torch import Tensor, nn

from clip_export.encoders.feature_names import TokenFeature
from clip_export.encoders.image import Encoder
from clip_export.encoders.tokens import poolings_of
from clip_export.graph.large import FLOAT32, SMALLER, check_size, without_weights
from clip_export.graph.model_file import IR_VERSION
from clip_export.graph.operators import OPERATORS
from clip_export.graph.preprocessing import preprocess_graph
from clip_export.graph.towers import image_network
from clip_export.graph.tracing import EXAMPLE_BATCH, declare_opsets, trace
from clip_export.graph.vit import AllDepths
from clip_export.graph.vit_weights import canonical_vit
from clip_export.heads.outputs import probabilities, unit_length
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL, output_names

_EXAMPLE_GRID = (5, 7)
"""Patches of an example that keeps its shape: any numbers that no other dimension has."""


@dataclass(frozen=True)
class Answers:
    """What is made of a head's logits.

    Attributes:
        task: one of `clip_toolkit.spec.tasks.TASKS`, which decides the outputs.
        temperature: the logits are divided by it before they become probabilities.
    """

    task: str = SINGLE_LABEL
    temperature: float = 1.0

    def outputs(self, logits: Tensor, feature: Tensor) -> tuple[Tensor, ...]:
        """Return the task's outputs, float32 ``[batch, classes]``, and the unit-length feature ``[batch, dim]``."""
        embedding = unit_length(feature)
        if self.task == REGRESSION:
            return logits, embedding
        return probabilities(logits, self.task, self.temperature), logits, embedding


Further = Mapping[str, tuple[nn.Module, Answers]]
"""Heads beside the main one, by name, and what is made of their logits."""


class Network(nn.Module):
    """Canonical encoder, head, what the task makes of its outputs, and the normalised embedding."""

    def __init__(self, vit: nn.Module, head: nn.Module, answers: Answers, further: Further) -> None:
        """Join an encoder and its heads."""
        super().__init__()
        self.vit, self.head, self.answers = vit, head, answers
        self.heads = nn.ModuleList(module for module, _ in further.values())
        self.further = [answers for _, answers in further.values()]

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels to the task's outputs, as `Answers.outputs`, and those of further heads without the embedding."""
        feature = self.vit(pixels)
        found = self.answers.outputs(self.head(feature), feature)
        for module, answers in zip(self.heads, self.further, strict=True):
            found += answers.outputs(module(feature), feature)[:-1]
        return found


def network_graph(
    encoder: Encoder,
    head: nn.Module,
    input_kind: str,
    ops: str,
    answers: Answers = Answers(),
    *,
    further: Further = MappingProxyType({}),
    precision: str = FLOAT32,
    others: Sequence[str] = SMALLER,
) -> onnx.ModelProto:
    """Build the ONNX model of encoder and head, without metadata.

    Args:
        encoder: the encoder.
        head: from its feature to logits.
        input_kind: ``image`` (any size, preprocessing inside) or ``pixels`` (normalised ``pixel_values``).
        ops: a name of `clip_export.graph.operators.OPERATORS`.
        answers: what is made of the logits.
        further: heads beside this one; the names of their outputs end in theirs.
        precision: of the file that is made of it.
        others: that could be asked for in its place.

    Raises:
        EncoderError: more weights than one file of that precision holds.
    """
    vit = image_network(encoder, OPERATORS[ops], takes_pixel_values=input_kind == "pixels")
    network = Network(vit, head, answers, further).eval()
    check_size(encoder.id, network, precision, others)
    names = list(output_names(answers.task))
    for name, (_, made) in further.items():
        names += output_names(made.task, name)[:-1]
    body = trace(network, pixel_example(encoder, input_kind), names, pixel_sizes(encoder, input_kind))
    return behind_preprocessing(body, encoder, input_kind)


def pixel_example(encoder: Encoder, input_kind: str) -> dict[str, Tensor]:
    """Make an example of the encoder's input: ``pixel_values``, or ``pixels`` uint8 ``[batch, size, size, 3]``."""
    side, patch = encoder.preprocessing.size, encoder.preprocessing.patch
    if input_kind == "pixels":
        return {"pixel_values": torch.zeros(EXAMPLE_BATCH, 3, side, side)}
    height, width = (rows * patch for rows in _EXAMPLE_GRID) if patch else (side, side)
    return {"pixels": torch.zeros(EXAMPLE_BATCH, height, width, 3, dtype=torch.uint8)}


def pixel_sizes(encoder: Encoder, input_kind: str) -> dict[str, dict[int, torch.export.Dim]]:
    """Return what varies in `pixel_example`: the batch, and where images keep their shape, their rows and columns."""
    batch, patch = torch.export.Dim("batch", min=1), encoder.preprocessing.patch
    if input_kind == "pixels":
        return {"pixel_values": {0: batch}}
    grid = {axis: patch * torch.export.Dim(name, min=1) for axis, name in ((1, "rows"), (2, "columns")) if patch}
    return {"pixels": {0: batch} | grid}


def behind_preprocessing(body: onnx.ModelProto, encoder: Encoder, input_kind: str) -> onnx.ModelProto:
    """Put resize and crop in front of a graph that takes ``pixels``; leave one that takes ``pixel_values``."""
    if input_kind == "pixels":
        return body
    first = preprocess_graph(encoder.preprocessing)
    bare = without_weights(body)  # which the two functions below would copy
    graph = compose.merge_graphs(first.graph, bare.graph, [("pixels", "pixels")], name="clip_classifier")
    model = onnx.helper.make_model(
        graph, opset_imports=[*first.opset_import, *body.opset_import], ir_version=IR_VERSION
    )
    del model.graph.initializer[:]
    model.graph.initializer.extend([*first.graph.initializer, *body.graph.initializer])
    declare_opsets(model)
    return model


def encoder_graph(encoder: Encoder) -> onnx.ModelProto:
    """Build the ONNX model of what one pass makes: ``pixels`` uint8 ``[batch, size, size, 3]`` to ``rows``.

    Those are features ``[batch, dim]``, or with `Encoder.makes_all_depths` those of all depths.

    Raises:
        EncoderError: more weights than one graph holds.
    """
    network: nn.Module
    if encoder.makes_all_depths:
        everything = TokenFeature(poolings_of(encoder.family.image), encoder.blocks.depth)
        network = AllDepths(canonical_vit(replace(encoder, feature=str(everything)), OPERATORS["ort"]))
    else:
        network = image_network(encoder, OPERATORS["ort"])
    check_size(encoder.id, network, others=())
    return trace(network.eval(), pixel_example(encoder, "image"), ("rows",), pixel_sizes(encoder, "image"))
