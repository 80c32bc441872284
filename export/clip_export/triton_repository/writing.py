"""Writing a model repository: the network, a model that decodes for it, and an ensemble of the two.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import onnx

from clip_export.triton_repository.configuration import LABELS, decode_config, ensemble_config, network_config
from clip_toolkit.errors import OutputError
from clip_toolkit.files.atomic import temporary_beside
from clip_toolkit.spec.classifier import ModelSpec, check_one_head
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import REGRESSION

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_MAX_BATCH = 8  # as clip-serve has it
_RANGES_AT_RUN_TIME = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul"}


@dataclass(frozen=True)
class _Model:
    """A model of the repository: the files that all its versions share, and how a version's folder is filled."""

    folder: Path
    files: dict[str, str]
    fill: Callable[[Path], object]


def check_repository(model: Path, folder: Path) -> None:
    """Find out before minutes of work whether a file can be added under its name; make the folder.

    Raises:
        OutputError: the name is none for Triton, or the folder cannot be written.
    """
    if not _NAME.fullmatch(model.stem):
        raise OutputError(
            f"{model}: a Triton model's name has letters, digits, '_', '-' and '.'. Use another file name."
        )
    with _explained(folder), temporary_beside(_made(folder) / model.stem):
        pass


def write_repository(model: Path, folder: Path) -> list[str]:
    """Add a model file to a Triton model repository, as a new version where it is there already.

    Args:
        model: of ``clip-export``; its name without the suffix becomes that of the network's model. ``_decode`` and
            ``_images`` are appended for the others.
        folder: the repository, which is made where it is missing.

    Returns:
        The names of the models; the last one takes encoded images.

    Raises:
        ModelError: the file is missing, foreign or damaged.
        OutputError: its images keep their shape, the name is none for Triton, the repository has another model of it,
            or cannot be written.
    """
    check_repository(model, folder)
    spec = read_spec(model)
    check_one_head(spec, "a Triton configuration", "the file by itself, whose outputs are named after the heads")
    if spec.preprocessing.mode == "naflex":
        raise OutputError(f"{model}: its images keep their shape, and a batch in Triton has one. Use clip-serve.")
    models = _models(model, folder, spec)
    with _explained(folder):
        version = 1 + max(map(_latest, models))
        for item in models:
            _add_version(item, str(version))
    return [item.folder.name for item in models]


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _models(model: Path, folder: Path, spec: ModelSpec) -> list[_Model]:
    network, decode, ensemble = (model.stem + suffix for suffix in ("", "_decode", "_images"))
    batch = _largest_batch(model, spec)
    labels = {} if spec.task == REGRESSION else {LABELS: "".join(f"{label}\n" for label in spec.labels)}
    config = network_config(network, spec, batch)
    whole = ensemble_config(ensemble, spec, batch, decode=decode, network=network)
    return [
        _Model(
            folder / network, {"config.pbtxt": config} | labels, lambda to: shutil.copyfile(model, to / "model.onnx")
        ),
        _Model(
            folder / decode, {"config.pbtxt": decode_config(decode, spec, batch)}, lambda to: _fill_decode(to, spec)
        ),
        _Model(folder / ensemble, {"config.pbtxt": whole} | labels, lambda _: None),
    ]


def _largest_batch(model: Path, spec: ModelSpec) -> int:
    """Return 1 where an answer would depend on its neighbours in a batch: by their ranges, or by their padding."""
    operators = {node.op_type for node in onnx.load(model).graph.node}
    return 1 if spec.text is not None or operators & _RANGES_AT_RUN_TIME else _MAX_BATCH


def _fill_decode(folder: Path, spec: ModelSpec) -> None:
    source = resources.files("clip_export.triton_repository").joinpath("decode_model.py").read_text(encoding="utf-8")
    (folder / "model.py").write_text(source, encoding="utf-8")
    (folder / "spec.json").write_text(spec.to_json(), encoding="utf-8")


def _latest(model: _Model) -> int:
    """Return the latest version of a model, 0 if there is none."""
    if not model.folder.exists():
        return 0
    for name, text in model.files.items():
        path = model.folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise OutputError(
                f"{path}: differs from what this file needs, and all versions of a model share it. "
                "Remove the folder, or use another file name."
            )
    return max((int(path.name) for path in model.folder.iterdir() if path.name.isdecimal()), default=0)


def _add_version(model: _Model, version: str) -> None:
    """Add a version that appears whole, and with it its model where that is new."""
    is_new = not model.folder.exists()
    with temporary_beside(model.folder, is_folder=True) as temporary:
        content = temporary / version if is_new else temporary
        content.mkdir(exist_ok=True)
        model.fill(content)
        for name, text in model.files.items() if is_new else ():
            (temporary / name).write_text(text, encoding="utf-8")
        temporary.rename(model.folder if is_new else model.folder / version)
