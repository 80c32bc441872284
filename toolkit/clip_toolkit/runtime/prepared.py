"""Weights laid out for this processor once, in the user's cache folder, where every process maps them into its memory.

ONNX Runtime writes what it makes of a model file: the optimised graph, and the weights as its kernels want them. Where
the receipt beside them fits, they are opened in the file's place: same model, build and processor, and files that have
not changed since.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from clip_toolkit.errors import ModelError, OutputError, first_line
from clip_toolkit.files.atomic import temporary_beside, written_atomically
from clip_toolkit.files.locate import cache_folder
from clip_toolkit.files.stamp import Stamp, is_unchanged, read_digest, stamp_of
from clip_toolkit.runtime.devices import CPU, import_onnxruntime
from clip_toolkit.runtime.processor import processor_facts

IN_USE = "prepared weights"
"""The note on a session that runs them."""

_FORMAT = 2  # of the receipt and of what `_write` asks ONNX Runtime for
_GRAPH, _WEIGHTS, _RECEIPT = "graph.onnx", "weights.bin", "receipt.json"


class Prepared(NamedTuple):
    """What is there for a model file.

    Attributes:
        graph: the file to open in its place, or None.
        remarks: for the user, one line each.
        receipt: what the files were when they were found to fit.
    """

    graph: Path | None = None
    remarks: tuple[str, ...] = ()
    receipt: str = ""


def find_prepared(model: Path) -> Prepared:
    """Look for what `prepare` has made of a model file, and whether it still fits.

    Files are read again only where their times of change differ from those in the receipt, as after copying them; if
    they fit, the receipt has the new times from then on. Whoever opens the graph asks once more afterwards: another
    process may have put other weights beside it meanwhile.
    """
    try:
        folder = _folder(model)
        if not folder.is_dir():
            return Prepared()
    except (OSError, RuntimeError):  # a folder of somebody else's; a user without a home folder
        return Prepared()
    try:
        receipt = _fitting_receipt(model, folder)
    except _MismatchError as wrong:
        return Prepared(None, (unused(model, str(wrong)),))
    return Prepared(folder / _GRAPH, (IN_USE,), receipt)


def unused(model: Path, reason: str) -> str:
    """Word the note that what was prepared of a model is not used."""
    return f"prepared weights are not used: {reason}. Run: clip-infer --prepare {model}"


def prepare(model: Path) -> Path:
    """Lay out the weights of a model file for the CPU, in the place of what was prepared of it before.

    Returns:
        The folder with the result, two to four times as large as the file.

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
            (temporary / _RECEIPT).write_text(_receipt(files), encoding="utf-8")
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


def _receipt(files: list[tuple[Stamp, str]]) -> str:
    return json.dumps([*_circumstances(), files])


def _circumstances() -> tuple[int, str, list[str]]:
    """Return what else the result depends on: our format, the build of ONNX Runtime, and the processor."""
    runtime = import_onnxruntime()
    build = f"{runtime.__version__}, {runtime.get_build_info()}"
    return _FORMAT, build, [*processor_facts(), *_apple_chip()]


@cache
def _apple_chip() -> list[str]:
    """Name the chip on macOS, where the facts of all processors are alike."""
    if sys.platform == "darwin":
        with suppress(OSError, subprocess.SubprocessError):
            return [subprocess.check_output(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], text=True).strip()]
    return []


def _seen(path: Path) -> tuple[Stamp, str]:
    stamp, digest = read_digest(path)
    return stamp, digest.hex()


class _MismatchError(Exception):
    """What was prepared does not fit; says why."""


def _fitting_receipt(model: Path, folder: Path) -> str:
    """Return the receipt of what was prepared, with the times of change that its files have now.

    Raises:
        _MismatchError: something does not fit.
    """
    places = model, folder / _GRAPH, folder / _WEIGHTS
    try:
        text = (folder / _RECEIPT).read_text(encoding="utf-8")
        number, build, processor, files = json.loads(text)
        seen = [(Stamp(*stamp), bytes.fromhex(digest)) for stamp, digest in files]
    except (OSError, ValueError, TypeError, RecursionError):
        raise _MismatchError("their receipt is damaged") from None
    if (number, build, processor) != _circumstances():
        raise _MismatchError(f"they are of another processor, or of another ONNX Runtime ({str(build)[:80]})")
    if len(seen) != len(places):
        raise _MismatchError("their receipt is damaged")
    now = [stamp_of(path) for path in places]  # before they are read: what replaces one later has another
    is_same, *are_whole = (is_unchanged(path, *before) for path, before in zip(places, seen, strict=True))
    if not is_same:
        raise _MismatchError("the model file has been changed since")
    if not all(are_whole):
        raise _MismatchError("they are damaged")
    found = [(stamp or before, digest.hex()) for stamp, (before, digest) in zip(now, seen, strict=True)]
    return _renewed(folder, text, _receipt(found))


def _renewed(folder: Path, text: str, renewed: str) -> str:
    """Write the receipt anew, if it can be, where times of change differ: else the files would be read each time."""
    if renewed == text:
        return text
    with suppress(OSError, OutputError):
        with written_atomically(folder / _RECEIPT) as temporary:
            temporary.write_text(renewed, encoding="utf-8")
        return renewed
    return text
