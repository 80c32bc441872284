"""Who runs the frozen encoder: PyTorch, or ONNX Runtime on our own graph of it, whichever is faster here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_export.encoders.image import Encoder
from clip_export.features.memory import memory_named
from clip_toolkit.errors import DeviceError, EncoderError
from clip_toolkit.images.preprocess import normalise
from clip_toolkit.runtime.session import open_graph
from clip_toolkit.spec.classifier import Preprocessing

WORTH_EXPORTING = 10.0
"""Seconds with PyTorch from which ``auto`` tries ONNX Runtime: making its graph takes about four."""

_COMPARED = 8  # images: enough for a rate, and few enough that the comparison costs a second

TOLERANCE = 1e-3
"""Largest difference between the two, relative to the largest feature; beyond it PyTorch is used."""

Runner = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Pixels uint8 ``[batch, size, size, 3]`` to an encoder's rows float32 ``[batch, *row_shape]`` (or hidden states)."""


class Backend(NamedTuple):
    """A runner and its name, with what decided for it."""

    name: str
    run: Runner


def choose_backend(encoder: Encoder, device: str, wanted: str, images: int, sample: NDArray[np.uint8]) -> Backend:
    """Choose the backend to run ``images`` images with.

    Args:
        encoder: the encoder; it is moved to ``device``.
        device: a PyTorch device. ONNX Runtime is tried on the CPU alone.
        wanted: one of `clip_export.training.options.BACKENDS`.
        images: how many there are.
        sample: pixels, of which the first few are compared on.

    Raises:
        DeviceError: ONNX Runtime was asked for by name, and cannot run the encoder or does not agree with PyTorch.
    """
    plain = Backend("PyTorch", torch_runner(encoder, device))
    if wanted == "torch" or (wanted == "auto" and device != "cpu"):
        return plain
    sample = sample[:_COMPARED]
    start = time.perf_counter()
    expected = plain.run(sample)
    if wanted == "auto" and (time.perf_counter() - start) / len(sample) * images < WORTH_EXPORTING:
        return plain
    try:
        other = Backend("ONNX Runtime", onnx_runner(encoder))
    except EncoderError as error:
        if wanted == "auto":
            return plain
        raise DeviceError(f"{error} Or use --backend torch.") from error
    got = other.run(sample)
    difference = float(np.abs(expected - got).max() / np.abs(expected).max())
    if not difference <= TOLERANCE:
        if wanted == "auto":
            return plain
        raise DeviceError(f"ONNX Runtime's features differ from PyTorch's by {difference:.2g}. Use --backend torch.")
    if wanted == "auto" and _seconds(plain.run, sample) < _seconds(other.run, sample):
        return plain
    return other


def torch_runner(encoder: Encoder, device: str) -> Runner:
    """Return the unpatched transformers modules on a PyTorch device."""
    encoder.tower.to(device)
    if encoder.projection is not None:
        encoder.projection.to(device)
    return on_device(encoder.rows, encoder.preprocessing, device)


def on_device(encode: Callable[[Tensor], Tensor], rule: Preprocessing, device: str) -> Runner:
    """Return a PyTorch function of normalised pixels, which is on a device already.

    Raises:
        DeviceError: when it runs, and the device has too little memory.
    """

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = torch.from_numpy(normalise(pixels, rule))
        with memory_named(device, len(pixels)), torch.inference_mode():
            return encode(values.to(device)).float().cpu().numpy()

    return run


def onnx_runner(encoder: Encoder) -> Runner:
    """Our graph of the encoder on ONNX Runtime's CPU provider."""
    from clip_export.graph.network import encoder_graph

    session = open_graph(encoder_graph(encoder).SerializeToString())

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        (rows,) = session.run(["rows"], {"pixels": pixels})
        return np.asarray(rows, np.float32)

    return run


def _seconds(run: Runner, sample: NDArray[np.uint8]) -> float:
    """Time two runs and return the better one, in seconds."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        run(sample)
        times.append(time.perf_counter() - start)
    return min(times)
