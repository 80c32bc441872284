"""Decode images and tokenize texts in Triton's Python backend, by the rules of clip-infer.

The backend's Python needs the package clip-toolkit, and for models that read texts the package tokenizers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as backend  # Triton provides it
from numpy.typing import NDArray

from clip_toolkit.errors import ImageError, TextError
from clip_toolkit.images import DecodeOptions
from clip_toolkit.images.preparing import Preparation
from clip_toolkit.images.preprocess import normalise
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.text.tokenization import INPUTS, Tokenizer


class TritonPythonModel:
    """The class that Triton looks for."""

    def initialize(self, _arguments: dict[str, str]) -> None:
        """Read the spec that lies beside this file."""
        self._spec = ModelSpec.from_json(Path(__file__).with_name("spec.json").read_text(encoding="utf-8"))
        self._prepare = Preparation(DecodeOptions(), self._spec.preprocessing)
        self._tokenizer = None if self._spec.text is None else Tokenizer(self._spec.text.tokenizer)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with the network's inputs, or with what is wrong with it."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            tensors = self._inputs(request)
        except (ImageError, TextError) as error:
            refusal = backend.TritonError(str(error), backend.TritonError.INVALID_ARG)
            return backend.InferenceResponse(output_tensors=[], error=refusal)
        return backend.InferenceResponse(output_tensors=[backend.Tensor(*item) for item in tensors.items()])

    def _inputs(self, request: Any) -> dict[str, NDArray[Any]]:
        pixels = np.stack([self._prepare(image) for image in _elements(request, "image")])
        tensors: dict[str, NDArray[Any]] = {"pixels": pixels}
        if self._spec.input == "pixels":
            tensors["pixels"] = normalise(pixels, self._spec.preprocessing)
        if self._tokenizer is not None:
            tokens = self._tokenizer.encode([_text(text) for text in _elements(request, "text")])
            tensors |= {name: getattr(tokens, name) for name in INPUTS}
        return tensors


def _elements(request: Any, name: str) -> list[bytes]:
    found: list[bytes] = backend.get_input_tensor_by_name(request, name).as_numpy().ravel().tolist()
    return found


def _text(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise TextError(f"text: expected UTF-8 ({error})") from error
