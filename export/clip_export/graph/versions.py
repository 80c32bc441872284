"""Versions of formats that the exported file is written in, and of the packages that wrote it."""

from __future__ import annotations

from importlib.metadata import version

from clip_toolkit.version import __version__

OPSET = 20
"""Standard ONNX operator set: the first with Gelu, and one that onnxruntime-web and OpenVINO know."""

IR_VERSION = 10
"""ONNX file format, of onnx 1.16 and ONNX Runtime 1.18: what runtimes in the field read."""

_PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow")


def tool_versions() -> dict[str, str]:
    """Name and version of everything that had a hand in an exported file."""
    return {"clip-toolkit": __version__} | {name: version(name) for name in _PACKAGES}
