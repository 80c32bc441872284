"""Where files are that nobody has named: the model, and what is kept for the next time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from clip_toolkit.errors import ModelNotFoundError

ENVIRONMENT_VARIABLE = "CLIP_MODEL"
DEFAULT_NAME = "model.onnx"
_DEMO_NAME = "demo.onnx"


@dataclass(frozen=True)
class Located:
    """A model file, and whether it is the demo that comes with the package."""

    path: Path
    is_demo: bool = False


def find_model(model: str | os.PathLike[str] | None = None) -> Located:
    """Find the model file: the argument, ``$CLIP_MODEL``, ``model.onnx`` in the working folder, the built-in demo.

    Raises:
        ModelNotFoundError: none was given and the built-in demo is missing from the installation.
    """
    if model is not None:
        return Located(Path(model))
    if os.environ.get(ENVIRONMENT_VARIABLE):
        return Located(Path(os.environ[ENVIRONMENT_VARIABLE]))
    if Path(DEFAULT_NAME).is_file():
        return Located(Path(DEFAULT_NAME))
    return Located(_demo(), is_demo=True)


def missing(path: Path) -> ModelNotFoundError:
    """Return the error on a model file that is not there."""
    return ModelNotFoundError(
        f"{path}: there is no such model file. Make one with clip-export, or name another with --model."
    )


def cache_folder() -> Path:
    """Return the folder for what can be made anew; it may not exist yet.

    Raises:
        RuntimeError: the user has no home folder.
    """
    named = (Path(os.environ.get(name, "")) for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"))
    folder = next((path for path in named if path.is_absolute()), None)  # relative ones are to be ignored, says XDG
    return (folder or Path.home() / ".cache") / "clip-toolkit"


def _demo() -> Path:
    package = Path(__file__).parents[1]
    installed = package / _DEMO_NAME
    in_source_tree = package.parents[1] / "models" / _DEMO_NAME
    for path in (installed, in_source_tree):
        if path.is_file():
            return path
    raise ModelNotFoundError(
        f"no --model, no ${ENVIRONMENT_VARIABLE}, no {DEFAULT_NAME} in this folder, and this installation has no "
        "built-in demo. Make a model with clip-export."
    )
