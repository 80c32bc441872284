"""A PyTorch module as an ONNX graph with named inputs, outputs and nodes, and nothing of the machine that made it."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any

import onnx
import torch
from onnxscript import opset20 as op
from torch import Tensor, fx, nn

from clip_export.graph.model_file import IR_VERSION, OPSET
from clip_toolkit.errors import EncoderError

EXAMPLE_BATCH = 3
"""Of example inputs: any size but 1, which the exporter would take for a constant."""


def trace(
    network: nn.Module,
    examples: Mapping[str, Tensor],
    outputs: Sequence[str],
    sizes: Mapping[str, Mapping[int, torch.export.Dim]] | None = None,
    weights: Mapping[str, Tensor] = MappingProxyType({}),
) -> onnx.ModelProto:
    """Trace a module to an ONNX model without metadata.

    Args:
        network: the module.
        examples: an example of each input, by name, in the order of its arguments.
        outputs: names of the outputs.
        sizes: dimensions that vary, of every input by name; default the first one of each, ``batch``.
        weights: further inputs by name, of fixed sizes, which the module takes as its remaining arguments.

    Raises:
        EncoderError: the exporter cannot trace it, or there is not enough memory.
    """
    batch = {0: torch.export.Dim("batch", min=1)}
    varying: tuple[Any, ...] = tuple(dict(sizes[name]) if sizes else batch for name in examples)
    if weights:
        varying += (tuple({} for _ in weights),)
    values = (*examples.values(), *weights.values())
    with warnings.catch_warnings():  # the exporter's own business: deprecations inside torch
        warnings.simplefilter("ignore")
        try:
            captured = torch.export.export(network, values, dynamic_shapes=varying, strict=False)
            program = _translated(captured, varying, (*examples, *weights), tuple(outputs))
        except Exception as error:  # a tower of others may raise anything
            raise _untraceable(error) from error
    assert program is not None, "the exporter returns a program when it is given no file"
    model = program.model_proto
    model.ir_version = IR_VERSION
    _name_after_modules(model)
    _strip_traces(model)
    return model


def _untraceable(error: Exception) -> EncoderError:
    cause = error.__cause__ or error  # the exporter's own errors fill a screen
    words = " ".join(str(cause).split())[:300]
    reason = f"{type(cause).__name__}: {words}" if words else type(cause).__name__
    if isinstance(cause, MemoryError) or "CPUAllocator" in words:  # of which PyTorch tells in words alone
        remedy = "There is not enough memory: free some"
    elif isinstance(cause, AssertionError | RuntimeError | ValueError):  # what the exporter raises
        remedy = "Use another encoder"
    else:
        remedy = "Use another encoder, and report this: it may be our own fault"
    return EncoderError(f"PyTorch {torch.__version__} cannot trace the network to ONNX ({reason}). {remedy}.")


def _to_dtype(x: Any, dtype: int) -> Any:
    return op.Cast(x, to=dtype)


_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {torch.ops.aten.to.dtype: _to_dtype}
"""Of operators that the exporter knows in their decomposed form alone."""


def _translated(
    captured: torch.export.ExportedProgram, sizes: tuple[Any, ...], inputs: Sequence[str], outputs: Sequence[str]
) -> torch.onnx.ONNXProgram | None:
    """Translate a captured network to ONNX.

    The exporter first decomposes every operator into smaller ones and composes most of them again; that takes longer
    than all the rest. So it is given them whole, and decomposed ones only if it does not know all of them, or if one
    writes into its arguments, which decomposing mends.
    """

    def translate() -> torch.onnx.ONNXProgram | None:
        return torch.onnx.export(
            captured,
            dynamic_shapes=sizes,
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            custom_translation_table=_TRANSLATIONS,
            verbose=False,
        )

    if not any(_mutates(node) for node in captured.graph.nodes):
        with suppress(torch.onnx.OnnxExporterError), _kept_whole(captured):
            return translate()
    return translate()


@contextmanager
def _kept_whole(captured: torch.export.ExportedProgram) -> Iterator[None]:
    """Let the exporter take a network for decomposed as it is: it has no argument for that."""
    vars(captured)["run_decompositions"] = lambda _: captured
    try:
        yield
    finally:
        del vars(captured)["run_decompositions"]


def _mutates(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable  # noqa: SLF001


def declare_opsets(model: onnx.ModelProto) -> None:
    """Name each operator domain that is used, once: merging leaves doubles and those of inlined functions."""
    versions = {item.domain: item.version for item in model.opset_import}
    del model.opset_import[:]
    for domain in sorted({node.domain for node in model.graph.node}):
        model.opset_import.append(onnx.helper.make_opsetid(domain, versions[domain]))


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
