"""Weights laid out for this processor once, in the user's cache folder, where every process maps them into its memory.

ONNX Runtime writes what it makes of a model file: the optimised graph, and the weights as its kernels want them. Where
the receipt beside them fits, they are opened in the file's place: same model, version and processor, and no damage.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from clip_toolkit.errors import ModelError, OutputError, first_line
from clip_toolkit.files.atomic import temporary_beside
from clip_toolkit.files.locate import cache_folder
from clip_toolkit.files.stamp import Stamp, is_unchanged, read_digest
from clip_toolkit.runtime.devices import CPU, import_onnxruntime
from clip_toolkit.runtime.processor import processor_facts

_GRAPH, _WEIGHTS, _RECEIPT = "graph.onnx", "weights.bin", "receipt.json"


class Prepared(NamedTuple):
    """What is there for a model file.

    Attributes:
        graph: the file to open in its place, or None.
        remarks: for the user, one line each.
    """

    graph: Path | None = None
    remarks: tuple[str, ...] = ()


def find_prepared(model: Path) -> Prepared:
    """Look for what `prepare` has made of a model file, and whether it still fits.

    Files are read again only where their times of change differ from those in the receipt, as after copying them.
    """
    try:
        folder = _folder(model)
        if not folder.is_dir():
            return Prepared()
    except (OSError, RuntimeError):  # a folder of somebody else's; a user without a home folder
        return Prepared()
    wrong = _mismatch(model, folder)
    if wrong is not None:
        return Prepared(None, (f"prepared weights are not used: {wrong}. Run: clip-infer --prepare {model}",))
    return Prepared(folder / _GRAPH, ("prepared weights",))


def prepare(model: Path) -> Path:
    """Lay out the weights of a model file for the CPU, in the place of what was prepared of it before.

    Returns:
        The folder with the result, of about twice the file's size.

    Raises:
        ModelError: ONNX Runtime refuses the file, or it is changed meanwhile.
        MissingDependencyError: ONNX Runtime is not installed.
        OutputError: the cache folder cannot be written.
    """
    try:
        folder = _folder(model)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(folder, is_folder=True) as temporary:
            source = _seen(model)
            _write(model, temporary)
            if _seen(model) != source:
                raise ModelError(f"{model}: was changed while it was prepared. Prepare it again.")
            files = [source, _seen(temporary / _GRAPH), _seen(temporary / _WEIGHTS)]
            (temporary / _RECEIPT).write_text(json.dumps([*_circumstances(), files]), encoding="utf-8")
            _put(temporary, folder, model)
    except (OSError, RuntimeError) as error:  # the latter of a user without a home folder
        raise OutputError(f"{model}: what is prepared of it cannot be written ({error})") from error
    return folder


def remove_prepared(model: Path) -> None:
    """Remove what was prepared of a model file; processes that have opened it keep it until they end."""
    shutil.rmtree(_folder(model), ignore_errors=True)


def _folder(model: Path) -> Path:
    name = hashlib.sha256(os.fsencode(model.resolve())).hexdigest()[:32]
    return cache_folder() / "prepared" / name


def _write(model: Path, folder: Path) -> None:
    runtime = import_onnxruntime()
    options, quiet = runtime.SessionOptions(), runtime.SessionOptions()
    options.log_severity_level = quiet.log_severity_level = 4  # or it warns that the graph fits this machine alone
    options.optimized_model_filepath = os.fspath(folder / _GRAPH)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    try:
        runtime.InferenceSession(os.fspath(model), options, providers=[CPU], enable_fallback=0)
        runtime.InferenceSession(os.fspath(folder / _GRAPH), quiet, providers=[CPU], enable_fallback=0)  # is it whole?
    except Exception as error:  # ONNX Runtime raises its own classes, which share no base
        raise ModelError(f"{model}: ONNX Runtime cannot prepare it ({first_line(error)})") from error


def _put(temporary: Path, folder: Path, model: Path) -> None:
    remove_prepared(model)
    try:
        temporary.rename(folder)
    except OSError:
        if find_prepared(model).graph is None:  # else another process has been faster
            raise


def _circumstances() -> tuple[str, list[str]]:
    """Return what else the result depends on: the version of ONNX Runtime, and the processor."""
    return import_onnxruntime().__version__, processor_facts()


def _seen(path: Path) -> tuple[Stamp, str]:
    stamp, digest = read_digest(path)
    return stamp, digest.hex()


def _mismatch(model: Path, folder: Path) -> str | None:
    """Say what does not fit the receipt."""
    places = model, folder / _GRAPH, folder / _WEIGHTS
    try:
        version, processor, files = json.loads((folder / _RECEIPT).read_text(encoding="utf-8"))
        is_same, *are_whole = (
            is_unchanged(path, Stamp(*stamp), bytes.fromhex(digest))
            for path, (stamp, digest) in zip(places, files, strict=True)
        )
    except (OSError, ValueError, TypeError):
        return "their receipt is damaged"
    if (version, processor) != _circumstances():
        return f"they are of another processor, or of another ONNX Runtime ({version})"
    if not is_same:
        return "the model file has been changed since"
    return None if all(are_whole) else "they are damaged"
