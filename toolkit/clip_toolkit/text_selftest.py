"""Replaying the golden texts of a text tower: the tokenizer and the network, each against PyTorch's answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.errors import SpecError
from clip_toolkit.runtime.devices import CPU
from clip_toolkit.selftest import OTHER_PROVIDER_FACTOR, Drift
from clip_toolkit.text.tokenization import Tokens
from clip_toolkit.text_encoder import TextEncoder

TOLERANCE = 1e-3
"""Largest allowed drift on the CPU provider, relative to the largest expected value, as for images of a resize done
exactly."""

QUANTIZED_TOLERANCE = 5e-2
"""The same for an 8-bit file, from its own answers where it was exported: whether activations are rounded too is up to
the processor and the number of tokens. Another batch size moved embeddings by 1e-2 of their largest value."""


def selftest_text(encoder: TextEncoder) -> list[Drift]:
    """Replay the golden texts of an open text tower, each by itself.

    Returns:
        Of ``tokens`` the share that differs, with a tolerance of 0; of ``features`` and ``embedding`` the largest
        difference from PyTorch.

    Raises:
        SpecError: the file has no golden texts, or they are damaged.
        ModelError: the network fails on them.
    """
    golden = encoder.spec.golden
    if not golden:
        raise SpecError("selftest: the file holds no golden texts. Export the model again.")
    if any(len(item.features) != encoder.spec.encoder.dim for item in golden):
        raise SpecError(f"selftest: the golden features are damaged: expected {encoder.spec.encoder.dim} numbers each")
    tokens = [encoder.tokenizer.encode([item.text]) for item in golden]
    features = np.array([item.features for item in golden], np.float32)
    outputs = [encoder.run(each) for each in tokens]
    tolerance = TOLERANCE if encoder.spec.quantization is None else QUANTIZED_TOLERANCE
    tolerance *= 1 if encoder.provider == CPU else OTHER_PROVIDER_FACTOR
    return [
        _token_drift(tokens, [item.input_ids for item in golden]),
        _drift("features", np.concatenate([each.features for each in outputs]), features, tolerance),
        _drift("embedding", np.concatenate([each.embedding for each in outputs]), _normalised(features), tolerance),
    ]


def _token_drift(found: list[Tokens], expected: list[tuple[int, ...]]) -> Drift:
    wrong = [tuple(tokens.input_ids[0].tolist()) != ids for tokens, ids in zip(found, expected, strict=True)]
    return Drift("text", "tokens", sum(wrong) / len(wrong), 0.0)


def _drift(name: str, found: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float) -> Drift:
    unit = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    difference = float(np.abs(found - expected).max()) / unit
    return Drift("text", name, difference if np.isfinite(difference) else float("inf"), tolerance)


def _normalised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.asarray(features / lengths, np.float32)
