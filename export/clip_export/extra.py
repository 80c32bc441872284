"""The packages that training and export need and the runtime does not."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from clip_toolkit.errors import EncoderError, MissingDependencyError

_PACKAGES = (
    "torch",
    "transformers",
    "onnx",
    "onnxscript",
    "safetensors",
    "onnxruntime",
    "platformdirs",
    "rich",
    "scipy",
    "sklearn",
)

_DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # where a package is installed under another name than it is imported


def require_export_extra() -> None:
    """Check that the ``export`` extra is installed and can run here, without importing it.

    Raises:
        EncoderError: as `check_interpreter`.
        MissingDependencyError: a package is missing; the message says what to install.
    """
    check_interpreter()
    missing = _missing(_PACKAGES)
    if missing:
        raise MissingDependencyError(f"this command needs {missing}. Install: pip install 'clip-toolkit[export,cpu]'")


def check_interpreter() -> None:
    """Check that transformers can run: it builds classes from its own documentation.

    Raises:
        EncoderError: Python has left docstrings out.
    """
    if sys.flags.optimize > 1:
        raise EncoderError(
            "Python runs without docstrings (-OO, PYTHONOPTIMIZE=2), which transformers needs. Unset it."
        )


def require(extra: str, *packages: str) -> None:
    """Check that the packages of another extra are installed, without importing them.

    Raises:
        MissingDependencyError: a package is missing; the message names the extra.
    """
    missing = _missing(packages)
    if missing:
        raise MissingDependencyError(f"this needs {missing}. Install: pip install 'clip-toolkit[export,cpu,{extra}]'")


def _missing(packages: tuple[str, ...]) -> str:
    return ", ".join(_DISTRIBUTIONS.get(name, name) for name in packages if find_spec(name) is None)
