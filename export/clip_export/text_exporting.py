"""From a text tower to a proved model file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx

from clip_export.encoders.text import TextEncoder
from clip_export.encoders.tokenizer import tokenizer_spec
from clip_export.graph.model_file import save_model, tool_versions
from clip_export.graph.text_network import text_graph
from clip_export.proof.parity import check_replay
from clip_export.proof.text_parity import golden_texts, own_golden_texts, prove_text
from clip_export.quantization.text_tower import quantize_text
from clip_toolkit import load_text, selftest_text
from clip_toolkit.errors import QuantizationError
from clip_toolkit.files.atomic import check_writable, temporary_beside, written_atomically
from clip_toolkit.spec.text_tower import TextTowerSpec


def export_text_tower(
    tower: TextEncoder, output: Path, ops: str = "ort", min_cosine: float | None = None
) -> TextTowerSpec:
    """Write a text tower and its tokenizer as one ONNX file, proved against PyTorch before it appears.

    Args:
        tower: the text tower.
        output: the file to write; what is there stays untouched unless everything succeeds.
        ops: a name of `clip_export.graph.operators.OPERATORS`.
        min_cosine: write the file in int8, if its embeddings have at least this cosine similarity with the float ones;
            None leaves it in float32.

    Returns:
        The spec in the file, with its receipts.

    Raises:
        EncoderError: its tokenizer or an activation cannot be carried over.
        OutputError: the file cannot be written.
        ParityError: the file does not reproduce the PyTorch model.
        QuantizationError: it cannot be quantized, or would say something else.
    """
    check_writable(output)
    if min_cosine is not None and ops != "ort":
        raise QuantizationError(
            "int8: text towers need ONNX Runtime's own products of 8 bits. Leave out --ops standard, or --quantize."
        )
    spec = _spec(tower, ops)
    model = text_graph(tower, ops)
    with written_atomically(output) as temporary, temporary_beside(output) as scratch:
        unquantized = temporary if min_cosine is None else scratch
        save_model(model, spec, unquantized)
        spec = replace(spec, parity=prove_text(unquantized, tower), golden=golden_texts(tower))
        save_model(model, spec, unquantized)
        if min_cosine is not None:
            spec = _quantized(model, spec, scratch, min_cosine, temporary)
        check_replay(selftest_text(load_text(temporary, device="cpu")))
    return spec


def _quantized(
    model: onnx.ModelProto, spec: TextTowerSpec, path: Path, min_cosine: float, output: Path
) -> TextTowerSpec:
    """Write the quantized form of a proved float file to ``output``."""
    small, receipt = quantize_text(model, path, output, min_cosine)
    golden = own_golden_texts(load_text(output, device="cpu"))
    spec = replace(spec, quantization=receipt, golden=golden)
    save_model(small, spec, output)
    return spec


def _spec(tower: TextEncoder, ops: str) -> TextTowerSpec:
    return TextTowerSpec(
        encoder=tower.spec(),
        tokenizer=tokenizer_spec(tower),
        logit_scale=tower.logit_scale,
        logit_bias=tower.logit_bias,
        ops=ops,
        tools=tool_versions(),
    )
