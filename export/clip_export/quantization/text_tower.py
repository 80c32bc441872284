"""From a proved float text tower to a quantized one that says the same, or to a refusal."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import onnx

from clip_export.graph.model_file import save_model
from clip_export.quantization.text_int8 import quantize_text_int8
from clip_export.samples.texts import PROOF_TEXTS
from clip_toolkit import TextEncoder, TextTruncatedWarning, load_text
from clip_toolkit.errors import QuantizationError
from clip_toolkit.spec.text_tower import TextQuantization

_TIMED_RUNS = 9


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
        speed_ratio=_speed_ratio(before, after),
    )
    return small, receipt


def _cosines(before: TextEncoder, after: TextEncoder) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TextTruncatedWarning)  # some are long on purpose
        return (before.encode(PROOF_TEXTS) * after.encode(PROOF_TEXTS)).sum(1)


def _speed_ratio(before: TextEncoder, after: TextEncoder) -> float:
    """How many times faster the quantized file is, for one short text: median of the ratios of runs in turn."""
    seconds = np.array([[_seconds(encoder) for encoder in (before, after)] for _ in range(_TIMED_RUNS + 1)])
    return float(np.median(seconds[1:, 0] / seconds[1:, 1]))


def _seconds(encoder: TextEncoder) -> float:
    start = time.perf_counter()
    encoder.encode(PROOF_TEXTS[:1])
    return time.perf_counter() - start
