"""Python, ONNX Runtime and what Pillow can read."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import distributions

import PIL
from PIL import features

from clip_toolkit.doctor.finding import Finding
from clip_toolkit.errors import MissingDependencyError
from clip_toolkit.images.formats import registered_formats
from clip_toolkit.runtime.devices import import_onnxruntime
from clip_toolkit.telemetry import VARIABLE, telemetry_is_off


def installation() -> Iterator[Finding]:
    """Examine the software."""
    yield Finding("Python", "fine", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield _onnxruntime()
    yield _duplicates()
    yield _telemetry()
    optional = [name for name in ("AVIF", "HEIF", "JPEG2000", "WEBP") if name in registered_formats()]
    turbo = "with" if features.check_feature("libjpeg_turbo") else "without"
    yield Finding("Pillow", "fine", f"{PIL.__version__} {turbo} libjpeg-turbo; also reads {', '.join(optional)}")


def _onnxruntime() -> Finding:
    try:
        runtime = import_onnxruntime()
    except MissingDependencyError:
        return Finding("ONNX Runtime", "wrong", "not installed", "pip install 'clip-toolkit[cpu]'")
    return Finding("ONNX Runtime", "fine", f"{runtime.__version__} for {runtime.get_device()}")


def _telemetry() -> Finding:
    setting = f"{VARIABLE}={os.environ.get(VARIABLE, '')}"
    if telemetry_is_off():
        return Finding("telemetry", "fine", f"off ({setting})")
    return Finding("telemetry", "note", f"{setting}: ONNX Runtime may send usage data", f"unset {VARIABLE}")


def _duplicates() -> Finding:
    """Look for a second package: they overwrite each other's files, and the wrong one may be imported."""
    names = sorted({str(item.metadata["Name"]).lower() for item in distributions() if item.metadata["Name"]})
    wheels = [name for name in names if name == "onnxruntime" or name in _BUILDS]
    if len(wheels) > 1:
        fix = f"pip uninstall -y {' '.join(wheels)} && pip install {wheels[-1]}"
        return Finding(
            "ONNX Runtime packages", "wrong", f"{len(wheels)} overwrite each other: {', '.join(wheels)}", fix
        )
    return Finding("ONNX Runtime packages", "fine", ", ".join(wheels) or "none")


_BUILDS = ("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-silicon", "onnxruntime-qnn")
