"""Encoder and head as one network, and that network as ONNX."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence

import onnx
import torch
from onnx import compose
from torch import Tensor, nn

from clip_export.encoder import Encoder
from clip_export.operators import OPERATORS
from clip_export.preprocess_graph import preprocess_graph
from clip_export.tasks import probabilities
from clip_export.versions import IR_VERSION, OPSET
from clip_export.vit_weights import canonical_vit
from clip_toolkit.errors import EncoderError
from clip_toolkit.tasks import OUTPUTS, REGRESSION, SINGLE_LABEL

_LARGEST = 2**31 - 2**24  # bytes of weights; the limit of a protobuf message, less room for everything else

_EXAMPLE_BATCH = 3  # any size but 1, which the exporter would take for a constant


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
    size = sum(parameter.numel() for parameter in (*encoder.tower.parameters(), *head.parameters())) * 4
    if size > _LARGEST:
        raise EncoderError(
            f"{encoder.id}: {size / 2**30:.1f} GiB of weights, and one ONNX file holds 2 GiB. Use a smaller encoder."
        )
    vit = canonical_vit(encoder, OPERATORS[ops], takes_pixel_values=input_kind == "pixels")
    network = Network(vit, head.eval(), task, temperature).eval()
    side = encoder.preprocessing.size
    if input_kind == "pixels":
        return _exported(network, torch.zeros(_EXAMPLE_BATCH, 3, side, side), "pixel_values", OUTPUTS[task])
    example = torch.zeros(_EXAMPLE_BATCH, side, side, 3, dtype=torch.uint8)
    body = _exported(network, example, "pixels", OUTPUTS[task])
    model = compose.merge_models(preprocess_graph(encoder.preprocessing), body, io_map=[("pixels", "pixels")])
    model.graph.name = "clip_classifier"
    _declare_opsets(model)
    return model


def _declare_opsets(model: onnx.ModelProto) -> None:
    """Name each operator domain that is used, once: merging leaves doubles and those of inlined functions."""
    versions = {item.domain: item.version for item in model.opset_import}
    del model.opset_import[:]
    for domain in sorted({node.domain for node in model.graph.node}):
        model.opset_import.append(onnx.helper.make_opsetid(domain, versions[domain]))


def encoder_graph(encoder: Encoder) -> onnx.ModelProto:
    """The ONNX model of the encoder alone: ``pixels``, uint8 ``[batch, size, size, 3]``, to its ``feature``."""
    vit = canonical_vit(encoder, OPERATORS["ort"], takes_pixel_values=False).eval()
    side = encoder.preprocessing.size
    example = torch.zeros(_EXAMPLE_BATCH, side, side, 3, dtype=torch.uint8)
    return _exported(vit, example, "pixels", ("feature",))


def _exported(network: nn.Module, example: Tensor, name: str, outputs: Sequence[str]) -> onnx.ModelProto:
    with warnings.catch_warnings():  # the exporter's own business: deprecations inside torch
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=[name],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=OPSET,
            verbose=False,
        )
    model: onnx.ModelProto = program.model_proto
    model.ir_version = IR_VERSION
    _name_after_modules(model)
    _strip_traces(model)
    return model


_SCOPES = "pkg.torch.onnx.name_scopes"  # under which the exporter notes the modules around a node, the outermost first


def _name_after_modules(model: onnx.ModelProto) -> None:
    """Put the PyTorch module in front of each node's name, as in ``vit.blocks.0.qkv/node_linear``."""
    for node in model.graph.node:
        scopes = [ast.literal_eval(item.value) for item in node.metadata_props if item.key == _SCOPES]
        if scopes and len(scopes[0]) > 1:
            node.name = f"{scopes[0][-2]}/{node.name}"


def _strip_traces(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of Python source files: it says nothing to users and names their folders."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
