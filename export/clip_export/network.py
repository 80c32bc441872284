"""Encoder and head as one network, and that network as ONNX."""

from __future__ import annotations

import ast
import warnings

import onnx
import torch
from onnx import compose
from torch import Tensor, nn

from clip_export.encoder import Encoder
from clip_export.operators import OPERATORS
from clip_export.preprocess_graph import preprocess_graph
from clip_export.versions import IR_VERSION, OPSET
from clip_export.vit_weights import canonical_vit
from clip_toolkit.errors import EncoderError

OUTPUTS = ("probabilities", "logits", "embedding")

_LARGEST = 2**31 - 2**24  # bytes of weights; the limit of a protobuf message, less room for everything else

_EXAMPLE_BATCH = 3  # any size but 1, which the exporter would take for a constant


class Network(nn.Module):
    """Canonical encoder, head, softmax and normalised embedding."""

    def __init__(self, vit: nn.Module, head: nn.Module, temperature: float = 1.0) -> None:
        """Join an encoder and a head; the logits are divided by ``temperature`` before the softmax."""
        super().__init__()
        self.vit, self.head, self.temperature = vit, head, temperature

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels to `OUTPUTS`: float32 ``[batch, classes]`` twice, and ``[batch, dim]`` of L2 norm 1."""
        feature = self.vit(pixels)
        logits = self.head(feature)
        scaled = logits if self.temperature == 1 else logits / self.temperature
        return torch.softmax(scaled, dim=-1), logits, nn.functional.normalize(feature, dim=-1)


def network_graph(encoder: Encoder, head: nn.Module, input_kind: str, ops: str, temperature: float) -> onnx.ModelProto:
    """The ONNX model of encoder and head, without metadata.

    Args:
        encoder: the encoder.
        head: from its feature to logits.
        input_kind: ``image`` (any size, preprocessing inside) or ``pixels`` (normalised ``pixel_values``).
        ops: a name of `clip_export.operators.OPERATORS`.
        temperature: as in `Network`.
    """
    size = sum(parameter.numel() for parameter in (*encoder.tower.parameters(), *head.parameters())) * 4
    if size > _LARGEST:
        raise EncoderError(
            f"{encoder.id}: {size / 2**30:.1f} GiB of weights, and one ONNX file holds 2 GiB. Use a smaller encoder."
        )
    vit = canonical_vit(encoder, OPERATORS[ops], takes_pixel_values=input_kind == "pixels")
    network = Network(vit, head.eval(), temperature).eval()
    side = encoder.preprocessing.size
    if input_kind == "pixels":
        return _exported(network, torch.zeros(_EXAMPLE_BATCH, 3, side, side), "pixel_values")
    example = torch.zeros(_EXAMPLE_BATCH, side, side, 3, dtype=torch.uint8)
    body = _exported(network, example, "pixels")
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


def _exported(network: Network, example: Tensor, name: str) -> onnx.ModelProto:
    with warnings.catch_warnings():  # the exporter's own business: deprecations inside torch
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=[name],
            output_names=list(OUTPUTS),
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
