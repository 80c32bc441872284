"""The proof of a text tower: an exported file, run by the shipped runtime, against the PyTorch model, from text on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import clip_toolkit
from clip_export.encoders.text import TextEncoder, text_features, token_ids, truncated
from clip_export.proof.parity import BATCHES, TOLERANCE, check_bounds
from clip_export.samples.texts import GOLDEN_TEXTS, PROOF_TEXTS
from clip_toolkit.errors import ParityError
from clip_toolkit.spec.text_tower import GoldenText, TextParity

Features = NDArray[np.float32]


def prove_text(path: Path, tower: TextEncoder) -> TextParity:
    """Compare an exported file with PyTorch's answers, at several batch sizes, and so at several amounts of padding.

    Args:
        path: the exported file.
        tower: what it was made from.

    Raises:
        ParityError: a difference is out of tolerance; the message names it.
    """
    encoder = clip_toolkit.load_text(path, device="cpu")
    expected = text_features(tower, PROOF_TEXTS, batch_size=1)
    if not expected.isfinite().all():
        raise ParityError("the PyTorch model itself answers NaN or infinity: its text tower holds damaged weights.")
    embedding = torch.nn.functional.normalize(expected, dim=-1)
    found = [_outputs(encoder, batch) for batch in BATCHES]
    receipt = TextParity(
        texts=len(PROOF_TEXTS),
        truncated=len(truncated(tower, PROOF_TEXTS)),
        batches=BATCHES,
        feature_scale=float(expected.abs().max()),
        tolerance=TOLERANCE,
        features=max(_difference(features, expected) for features, _ in found),
        embedding=max(_difference(normalised, embedding) for _, normalised in found),
    )
    check_text(receipt)
    return receipt


def check_text(receipt: TextParity) -> None:
    """Hold a receipt against the tolerances.

    Raises:
        ParityError: a difference is out of tolerance, or not a number.
    """
    bounds = {"features": receipt.tolerance * receipt.feature_scale, "embedding": receipt.tolerance}
    check_bounds("texts", receipt, bounds)


def golden_texts(tower: TextEncoder) -> tuple[GoldenText, ...]:
    """Texts to keep in the model file, each with its tokens and PyTorch's features of it alone."""
    features = text_features(tower, GOLDEN_TEXTS, batch_size=1)
    return tuple(
        GoldenText(text, token_ids(tower, text), tuple(row.tolist()))
        for text, row in zip(GOLDEN_TEXTS, features, strict=True)
    )


def own_golden_texts(encoder: clip_toolkit.TextEncoder) -> tuple[GoldenText, ...]:
    """Record what a quantized file answers: elsewhere it has to answer the same, however far from PyTorch."""
    return tuple(
        replace(item, features=tuple(encoder.run(encoder.tokenizer.encode([item.text])).features[0].tolist()))
        for item in encoder.spec.golden
    )


def _outputs(encoder: clip_toolkit.TextEncoder, batch: int) -> tuple[Features, Features]:
    starts = range(0, len(PROOF_TEXTS), batch)
    runs = [encoder.run(encoder.tokenizer.encode(PROOF_TEXTS[start : start + batch])) for start in starts]
    return np.concatenate([run.features for run in runs]), np.concatenate([run.embedding for run in runs])


def _difference(found: Features, expected: torch.Tensor) -> float:
    return float(np.abs(found - expected.numpy()).max())
