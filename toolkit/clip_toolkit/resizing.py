"""Bringing one image to the model's size: by the file's own graph where that is faithful, by Pillow elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.devices import CPU, import_onnxruntime
from clip_toolkit.errors import ModelError
from clip_toolkit.preprocess import check_aspect, preprocess
from clip_toolkit.spec import ModelSpec

Resizer: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""uint8 RGB ``[height, width, 3]`` to uint8 RGB ``[size, size, 3]``."""

RESIZES = ("auto", "graph", "pillow")
"""What ``resize`` may be."""


def choose_resizer(spec: ModelSpec, provider: str, resize: str = "auto") -> tuple[str, Resizer]:
    """Name and function of the resize to use.

    ``auto`` takes the graph's on the CPU provider, the only one whose antialiased cubic resize has been found to
    follow Pillow (CUDA: microsoft/onnxruntime#25264; OpenVINO: openvinotoolkit/openvino#35893).

    Raises:
        ModelError: ``resize`` is unknown, or ``graph`` and the file has no resize in it.
    """
    if resize not in RESIZES:
        raise ModelError(f"resize: expected one of {', '.join(RESIZES)}, got {resize!r}")
    if resize == "auto":
        resize = "graph" if provider == CPU and graph_is_faithful(spec) else "pillow"
    if resize == "pillow":
        return resize, partial(preprocess, preprocessing=spec.preprocessing)
    if not spec.resize_graph:
        raise ModelError("resize: the model file holds no resize graph. Use resize='pillow'.")
    return resize, GraphResizer(spec.resize_graph)


def graph_is_faithful(spec: ModelSpec) -> bool:
    """Whether the graph's resize stays within 1 step in 0.1 % of the values of Pillow's.

    Bilinear does not (ties round the other way; see docs/model-file.md), and a graph whose resize and crop sizes
    differ takes an image of exactly the model's size as already prepared.
    """
    rule = spec.preprocessing
    return bool(spec.resize_graph) and rule.resample == "bicubic" and rule.resize == rule.size


class GraphResizer:
    """The preprocessing part of the graph, run by itself on the CPU."""

    def __init__(self, model: bytes) -> None:
        """Open a serialized ONNX model with input ``image`` and output ``pixels``."""
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1  # callers resize several images at once rather than one on several cores
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(model, options, providers=[CPU])
        except Exception as error:
            raise ModelError(f"the resize graph in the metadata cannot be opened ({error})") from error

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize and crop uint8 RGB ``[height, width, 3]`` to ``[size, size, 3]``."""
        check_aspect(*image.shape[:2])
        (pixels,) = self._session.run(["pixels"], {"image": image[None]})
        resized: NDArray[np.uint8] = pixels[0]
        return resized
