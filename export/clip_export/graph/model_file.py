"""The file that a network and its spec become: its formats, its tools, its bytes."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import onnx

from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.metadata import SPEC_KEY
from clip_toolkit.spec.text_tower import TextTowerSpec
from clip_toolkit.version import __version__

OPSET = 20
"""Standard ONNX operator set: the first with Gelu, and one that onnxruntime-web and OpenVINO know."""

IR_VERSION = 10
"""ONNX file format, of onnx 1.16 and ONNX Runtime 1.18: what runtimes in the field read."""

ONNXRUNTIME = {"int4": "1.31"}
"""Oldest ONNX Runtime that gives the answers of quantized files, where it is newer than that of all others: up to 1.29
int4 products move embeddings by 1e-2 of their largest value."""

_PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow")


def tool_versions() -> dict[str, str]:
    """Name and version of everything that had a hand in an exported file."""
    return {"clip-toolkit": __version__} | {name: version(name) for name in _PACKAGES}


def save_model(model: onnx.ModelProto, spec: ModelSpec | TextTowerSpec, path: Path) -> None:
    """Write a model file, in place: callers give a temporary path."""
    describe(model, spec)
    path.write_bytes(model.SerializeToString())


def describe(model: onnx.ModelProto, spec: ModelSpec | TextTowerSpec) -> None:
    """Put the spec into a model."""
    model.producer_name, model.producer_version = "clip-toolkit", spec.tools["clip-toolkit"]
    onnx.helper.set_model_props(model, {SPEC_KEY: spec.to_json()})
