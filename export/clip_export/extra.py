"""The packages that training and export need and the runtime does not."""

from __future__ import annotations

from importlib.util import find_spec

from clip_toolkit.errors import MissingDependencyError

_PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "safetensors", "onnxruntime", "rich")


def require_export_extra() -> None:
    """Check that the ``export`` extra is installed, without importing it.

    Raises:
        MissingDependencyError: a package is missing; the message says what to install.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"this command needs {', '.join(missing)}. Install: pip install 'clip-toolkit[export,cpu]'"
        )
