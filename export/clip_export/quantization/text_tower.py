"""From a proved float text tower to a quantized one that says the same, or to a refusal.

The weights take 8 bits, a quarter of the size. Activations are rounded by the operator itself, in blocks within one
token, where the processor has a fast way to. Dynamic ranges, as image towers may have, span a batch with its padding:
one text would move the embedding of another.
"""

from __future__ import annotations

import copy
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantFormat

from clip_export.graph.model_file import save_model
from clip_export.quantization.evidence.gate import speed_ratio
from clip_export.quantization.layers.tokens import with_integer_tokens
from clip_export.quantization.weights import matmul_nbits
from clip_export.samples.texts import PROOF_TEXTS
from clip_toolkit import TextEncoder, TextTruncatedWarning, load_text
from clip_toolkit.errors import QuantizationError
from clip_toolkit.spec.text_tower import TextQuantization

_BITS, _BLOCK, _INT8_ACTIVATIONS = 8, 128, 4  # of MatMulNBits: the last one is its accuracy_level


def quantize_text(
    model: onnx.ModelProto, path: Path, scratch: Path, min_cosine: float
) -> tuple[onnx.ModelProto, TextQuantization]:
    """Quantize a text tower to int8 and compare its embeddings with those of the float file.

    Args:
        model: the network of the float file, with the operators of ONNX Runtime.
        path: the proved float32 file.
        scratch: a file to write the quantized one to.
        min_cosine: bound on the cosine similarity of each text's embedding before and after.

    Raises:
        QuantizationError: the bound is not held, or ONNX Runtime is too old.
    """
    before = load_text(path, device="cpu")
    small = quantize_text_int8(model)
    save_model(small, before.spec, scratch)
    after = load_text(scratch, device="cpu")
    cosines = _cosines(before, after)
    if not cosines.min() >= min_cosine:  # so that NaN fails too
        worst = PROOF_TEXTS[int(cosines.argmin())]
        raise QuantizationError(
            f"int8: the embedding of {worst[:60]!r} has a cosine similarity of {cosines.min():.4f} with the float one, "
            f"less than {min_cosine:g}. No file was written. Leave out --quantize, or lower --min-agreement."
        )
    receipt = TextQuantization(
        mode="int8",
        texts=len(PROOF_TEXTS),
        mean_cosine=float(cosines.mean()),
        least_cosine=float(cosines.min()),
        min_cosine=min_cosine,
        size_ratio=scratch.stat().st_size / path.stat().st_size,
        speed_ratio=speed_ratio(*(partial(encoder.encode, PROOF_TEXTS[:1]) for encoder in (before, after))),
    )
    return small, receipt


def _cosines(before: TextEncoder, after: TextEncoder) -> NDArray[np.float32]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TextTruncatedWarning)  # some are long on purpose
        embeddings = before.encode(PROOF_TEXTS), after.encode(PROOF_TEXTS)
    alike = ~np.any(embeddings, axis=(0, 2))  # without a direction: texts without a token, of towers that average them
    return np.asarray((embeddings[0] * embeddings[1]).sum(1) + alike)


def quantize_text_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantize the network's linear layers and its table of words to 8 bits.

    Args:
        model: float32, of `clip_export.graph.text_network.text_graph` with ONNX Runtime's operators; left as it is.

    Raises:
        QuantizationError: the installed ONNX Runtime is too old.
    """
    nbits = matmul_nbits("int8")
    config = nbits.DefaultWeightOnlyQuantConfig(
        block_size=_BLOCK,
        is_symmetric=True,
        accuracy_level=_INT8_ACTIVATIONS,
        quant_format=QuantFormat.QOperator,
        bits=_BITS,
    )
    quantizer = nbits.MatMulNBitsQuantizer(copy.deepcopy(model), algo_config=config)  # it works in place
    quantizer.process()
    return with_integer_tokens(quantizer.model.model)
