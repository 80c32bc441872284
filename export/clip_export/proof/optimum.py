"""A second opinion: Optimum's own export of the same checkpoint, compared with PyTorch, too."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clip_export.encoders.checkpoint import Checkpoint
from clip_export.encoders.families import FAMILIES
from clip_export.encoders.image import Encoder
from clip_export.proof.reference import Reference, pixel_values
from clip_toolkit.errors import EncoderError, MissingDependencyError
from clip_toolkit.runtime.session import open_graph


def optimum_differences(
    encoder: Encoder, head: nn.Module, files: Sequence[bytes], expected: Reference
) -> dict[str, float]:
    """Largest absolute differences of Optimum's export from PyTorch, with the same head behind it.

    Args:
        encoder: the encoder, of a family that Optimum exports.
        head: from its feature to logits.
        files: image files.
        expected: PyTorch's answers to them.

    Returns:
        ``embedding`` and ``logits``.

    Raises:
        EncoderError: Optimum does not know the family, or the feature is not made of the tower's output.
        MissingDependencyError: Optimum is not installed.
    """
    if encoder.tokens is not None:
        raise EncoderError(
            f"cross-check: Optimum exports whole towers, and {encoder.feature} ends at a block. "
            "Leave out --cross-check."
        )
    if encoder.input_size is not None:
        raise EncoderError(
            f"cross-check: Optimum exports towers at their own input size, not at {encoder.input_size}. "
            "Leave out --cross-check."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = export_with_optimum(encoder.checkpoint, Path(folder))
        pooled = _pooled(path, torch.cat([pixel_values(encoder, file) for file in files]).numpy())
    with torch.inference_mode():
        feature = torch.from_numpy(pooled)
        feature = encoder.projection(feature) if encoder.projection is not None else feature
        logits, embedding = head(feature).numpy(), nn.functional.normalize(feature, dim=-1).numpy()
    return {
        "embedding": float(np.abs(embedding - expected.embedding).max()),
        "logits": float(np.abs(logits - expected.logits).max()),
    }


def export_with_optimum(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write Optimum's fp32 export of a checkpoint's image tower: ``pixel_values`` to ``pooler_output``.

    Raises:
        EncoderError: Optimum does not know the family.
        MissingDependencyError: Optimum is not installed.
    """
    kind = checkpoint.family.image.optimum
    if kind is None:
        known = ", ".join(family.name for family in FAMILIES if family.image.optimum)
        raise EncoderError(
            f"cross-check: Optimum exports {known} encoders, not {checkpoint.family.name}. Leave out --cross-check."
        )
    if find_spec("optimum") is None or find_spec("optimum.exporters.onnx") is None:
        raise MissingDependencyError(
            "the cross-check needs Optimum. Install: pip install 'clip-toolkit[export,cpu,optimum]'"
        )
    from optimum.exporters.onnx import onnx_export_from_model

    model: Any = checkpoint.model_of_class(kind)[0]
    model.config.name_or_path = str(folder)  # Optimum copies a preprocessor from there; without a name it asks the hub
    with contextlib.redirect_stdout(io.StringIO()):
        onnx_export_from_model(model, folder, task="feature-extraction", do_validation=False)
    return folder / "model.onnx"


def _pooled(path: Path, values: NDArray[np.float32]) -> NDArray[np.float32]:
    (pooled,) = open_graph(path).run(["pooler_output"], {"pixel_values": values})
    return pooled
