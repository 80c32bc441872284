"""The files each contender runs, made once for every encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from clip_export.encoders.image import Encoder
from clip_export.exporting import ExportOptions, export_classifier
from clip_export.graph.network import network_graph
from clip_export.graph.vit_weights import canonical_vit
from clip_export.heads.files import TrainedHead
from clip_export.heads.mlp import VLMtoMLP
from clip_export.proof.optimum import export_with_optimum
from encoders import Subject, save_checkpoint


@dataclass(frozen=True)
class Contender:
    """One way to run an encoder.

    Attributes:
        name: in the tables.
        engine: how ``bench/worker.py`` runs it: ``torch``, ``onnxruntime`` or ``openvino``.
        path: what it runs.
    """

    name: str
    engine: str
    path: Path


def contenders(subject: Subject, folder: Path) -> list[Contender]:
    """Every contender for an encoder, PyTorch first; Optimum where it exports the family."""
    checkpoint = save_checkpoint(subject, folder / "checkpoint")
    encoder = Encoder.from_pretrained(str(checkpoint))
    torch.manual_seed(1)
    head = VLMtoMLP(encoder.dim, 256, 2).eval()
    found = [Contender("PyTorch eager", "torch", checkpoint)]
    if encoder.family.image.optimum is not None:
        found.append(Contender("Optimum export, ONNX Runtime", "onnxruntime", _optimum(encoder, folder)))
    found.append(Contender("ours, ONNX Runtime", "onnxruntime", _ours(head, encoder, folder)))
    found.append(Contender("ours --ops standard, OpenVINO", "openvino", _standard(head, encoder, folder)))
    found.append(Contender("MatMul floor, ONNX Runtime", "onnxruntime", _floor(encoder, folder)))
    return found


def _optimum(encoder: Encoder, folder: Path) -> Path:
    path = folder / "optimum" / "model.onnx"
    return path if path.is_file() else export_with_optimum(encoder.checkpoint, path.parent)


def _ours(head: VLMtoMLP, encoder: Encoder, folder: Path) -> Path:
    path = folder / "ours.onnx"
    if not path.is_file():
        export_classifier(TrainedHead(head), encoder, path, ["a", "b"], ExportOptions())
    return path


def _standard(head: VLMtoMLP, encoder: Encoder, folder: Path) -> Path:
    path = folder / "standard.onnx"
    if not path.is_file():
        onnx.save(network_graph(encoder, head, "pixels", "standard"), path)
    return path


def _floor(encoder: Encoder, folder: Path) -> Path:
    """Return the products of the network's own shapes and nothing else, one after the other."""
    path = folder / "floor.onnx"
    if not path.is_file():
        onnx.save(_products(product_shapes(encoder)), path)
    return path


def product_shapes(encoder: Encoder) -> list[tuple[int, int, int]]:
    """Tokens, inputs and outputs of each product that the network needs."""
    config = canonical_vit(encoder).config
    tokens = config.class_token + config.patches
    width, hidden = config.width, config.hidden
    block = [(tokens, width, 3 * width), (tokens, width, width), (tokens, width, hidden), (tokens, hidden, width)]
    last = [(tokens, width, 2 * width), (1, width, 2 * width), (1, width, hidden), (1, hidden, width)]
    shapes = [(config.patches, 3 * config.patch**2, width)]
    shapes += block * (config.depth - 1) + (last if config.reads_class_only else [*block, *last])
    return shapes


def _products(shapes: list[tuple[int, int, int]]) -> onnx.ModelProto:
    """Products of a slice of one large input with constants; a sum of one number each keeps them from being dropped."""
    rng = np.random.default_rng(0)
    rows, columns = max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)
    nodes, constants = [], [_integers("axes", [1, 2]), _integers("zero", [0, 0]), _integers("one", [1, 1])]
    for i, (tokens, inputs, outputs) in enumerate(shapes):
        weight = rng.standard_normal((inputs, outputs)).astype(np.float32)
        constants += [numpy_helper.from_array(weight, f"w{i}"), _integers(f"end{i}", [tokens, inputs])]
        nodes += [
            helper.make_node("Slice", ["x", "zero", f"end{i}", "axes"], [f"x{i}"]),
            helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"y{i}"]),
            helper.make_node("Slice", [f"y{i}", "zero", "one", "axes"], [f"z{i}"]),
        ]
    nodes.append(helper.make_node("Concat", [f"z{i}" for i in range(len(shapes))], ["y"], axis=1))
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", rows, columns])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "products", [source], [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _integers(name: str, values: list[int]) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)
