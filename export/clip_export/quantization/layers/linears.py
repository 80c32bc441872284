"""The linear layers of an encoder's graph: what quantization and equalisation work on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

ENCODER = ("vit.", "text.")
"""What the names of the towers' modules begin with. The head, a few thousand products, stays in float."""

Constants = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Linear:
    """A layer ``output = source @ weight + bias``.

    Attributes:
        name: such as ``vit.blocks.0.qkv``.
        source: name of the tensor it reads, ``[..., inputs]``.
        output: name of the tensor it makes, ``[..., outputs]``.
        weight: float32 ``[inputs, outputs]``.
        bias: float32 ``[outputs]``, or None.
    """

    name: str
    source: str
    output: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None


def with_plain_linears(model: onnx.ModelProto) -> onnx.ModelProto:
    """Bring every linear layer of the towers into one form, with constants that no two modules share.

    That form is ``MatMul`` with a constant ``NAME.weight`` of ``[inputs, outputs]``, then ``Add`` of ``NAME.bias``. The
    constants of layer normalisations, of the patch convolution and of the head are called after their modules, too.
    """
    found = {layer.output: layer for layer in _layers(model)}
    constants: dict[str, NDArray[Any]] = {}
    for layer in found.values():
        constants[f"{layer.name}.weight"] = layer.weight
        if layer.bias is not None:
            constants[f"{layer.name}.bias"] = layer.bias
    inner = _products_before_biases(model, found)
    values = {item.name: item for item in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.output[0] in found:
            nodes += _plain(found[node.output[0]])
        elif node.output[0] not in inner:
            nodes.append(_with_own_constants(node, values, constants))
    return rebuilt(model, nodes, constants)


def find_linears(model: onnx.ModelProto) -> dict[str, Linear]:
    """Return the towers' linear layers by name, in running order, of a graph of `with_plain_linears`."""
    return {layer.name: layer for layer in _layers(model)}


def replace_linears(
    model: onnx.ModelProto, replacement: Callable[[Linear], tuple[Sequence[NodeProto], Constants] | None]
) -> onnx.ModelProto:
    """Replace layers of the network.

    Args:
        model: a graph with `with_plain_linears`.
        replacement: the nodes that make a layer's output, and their constants; None leaves the layer as it is.
    """
    nodes: list[NodeProto] = []
    constants: dict[str, NDArray[Any]] = {}
    found = {layer.output: layer for layer in _layers(model)}
    inner = _products_before_biases(model, found)
    replacements = {name: made for name, layer in found.items() if (made := replacement(layer)) is not None}
    for node in model.graph.node:
        if node.output[0] in replacements:
            new, values = replacements[node.output[0]]
            nodes += new
            constants |= values
        elif inner.get(node.output[0]) not in replacements:
            nodes.append(node)
    return rebuilt(model, nodes, constants)


def with_constants(model: onnx.ModelProto, constants: Constants) -> onnx.ModelProto:
    """Replace the values of some constants."""
    return rebuilt(model, model.graph.node, constants)


def rebuilt(model: onnx.ModelProto, nodes: Iterable[NodeProto], constants: Constants) -> onnx.ModelProto:
    """Rebuild the network from other nodes: ``constants`` are added or replace old ones, unused ones go.

    A node that makes a tensor of an old name has to make it in the old shape and type.
    """
    nodes = list(nodes)
    used = {name for node in nodes for name in node.input}
    made = {name for node in nodes for name in node.output}
    kept = [item for item in model.graph.initializer if item.name in used and item.name not in constants]
    graph = helper.make_graph(
        nodes,
        model.graph.name,
        model.graph.input,
        model.graph.output,
        value_info=[item for item in model.graph.value_info if item.name in made],
    )
    versions = {item.domain: item.version for item in model.opset_import} | {"com.microsoft": 1}
    domains = sorted({node.domain for node in nodes})
    new = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, versions[domain]) for domain in domains],
        ir_version=model.ir_version,
    )
    new.graph.initializer.extend(kept)  # here, and one by one, since the functions above copy what they take
    for name, value in constants.items():
        if name in used:
            new.graph.initializer.append(tensor(name, value))
    return new


def tensor(name: str, value: NDArray[Any]) -> TensorProto:
    """Return a constant of a graph."""
    return numpy_helper.from_array(np.ascontiguousarray(value), name)


def module_of(node: NodeProto) -> str:
    """Return the PyTorch module that a node came from; empty for those of the preprocessing."""
    module, slash, _ = node.name.partition("/")
    return module if slash else ""


def _plain(layer: Linear) -> list[NodeProto]:
    weight, product = f"{layer.name}.weight", f"{layer.name}.product"
    if layer.bias is None:
        return [helper.make_node("MatMul", [layer.source, weight], [layer.output], f"{layer.name}/product")]
    return [
        helper.make_node("MatMul", [layer.source, weight], [product], f"{layer.name}/product"),
        helper.make_node("Add", [product, f"{layer.name}.bias"], [layer.output], f"{layer.name}/sum"),
    ]


def _with_own_constants(
    node: NodeProto, values: Mapping[str, TensorProto], constants: dict[str, NDArray[Any]]
) -> NodeProto:
    """Name a node's weight and bias after its module; the exporter lets modules share equal ones."""
    if node.op_type not in ("LayerNormalization", "Conv", "Gemm"):
        return node
    own = NodeProto()
    own.CopyFrom(node)
    for i, kind in enumerate(("weight", "bias"), start=1):
        name = f"{module_of(node)}.{kind}"
        if i < len(node.input) and node.input[i] in values and name not in constants:
            own.input[i] = name
            constants[name] = numpy_helper.to_array(values[node.input[i]])
    return own


def _products_before_biases(model: onnx.ModelProto, found: Mapping[str, Linear]) -> dict[str, str]:
    """Return the output of each MatMul whose bias a node of its own adds, and that node's output."""
    products = {node.output[0] for node in model.graph.node if node.op_type == "MatMul"}
    sums = [node for node in model.graph.node if node.op_type == "Add" and node.output[0] in found]
    return {name: node.output[0] for node in sums for name in node.input if name in products}


def _layers(model: onnx.ModelProto) -> list[Linear]:
    constants = {item.name: item for item in model.graph.initializer}
    consumers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    layers = [_layer(node, constants, consumers) for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    found = [layer for layer in layers if layer is not None and layer.name.startswith(ENCODER)]
    modules: Counter[str] = Counter()
    for i, layer in enumerate(found):  # traced modules may compute several layers themselves
        modules[layer.name] += 1
        if modules[layer.name] > 1:
            found[i] = replace(layer, name=f"{layer.name}.{modules[layer.name]}")
    return found


def _layer(
    node: NodeProto, constants: Mapping[str, TensorProto], consumers: Mapping[str, Sequence[NodeProto]]
) -> Linear | None:
    if len(node.input) < 2 or node.input[1] not in constants:
        return None
    bias, output = (node.input[2] if len(node.input) > 2 else None), node.output[0]
    if node.op_type == "MatMul":
        bias, output = _added(node, constants, consumers)
    weight = numpy_helper.to_array(constants[node.input[1]])
    if any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
        weight = weight.T
    value = None if bias is None else numpy_helper.to_array(constants[bias])
    return Linear(module_of(node), node.input[0], output, weight, value)


def _added(
    product: NodeProto, constants: Mapping[str, TensorProto], consumers: Mapping[str, Sequence[NodeProto]]
) -> tuple[str | None, str]:
    """Return the bias that the same module adds to a product, if any, and the output of the sum."""
    match consumers.get(product.output[0], []):
        case [node] if node.op_type == "Add" and module_of(node) == module_of(product):
            biases = [name for name in node.input if name in constants]
            if biases:
                return biases[0], node.output[0]
    return None, product.output[0]
