"""From a device name to an ONNX Runtime session, and the truth about which execution provider took it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_toolkit.errors import DeviceError, MissingDependencyError, ModelError
from clip_toolkit.runtime.processor import usable_cores

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"

PROVIDERS = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
"""Execution provider of each device name."""

DEVICES = ("auto", *PROVIDERS)
"""What ``device`` may be."""

RESIZES = ("pillow", "graph")
"""What ``resize`` may be: the host's Pillow, or the resize inside the model file."""

# What ``auto`` tries before the CPU: no compilers that take minutes or may be slower than a plain CPU.
_AUTOMATIC = ("cuda", "coreml", "directml")

_SPLIT_BY_FOREIGN_OPERATORS = ("tensorrt", "openvino", "coreml")
_NEED_CUDA = ("cuda", "tensorrt")

ONE_RUN_AT_A_TIME = (PROVIDERS["directml"],)
"""Providers whose sessions do not bear two runs at once (ONNX Runtime's page on the DirectML provider)."""


@dataclass(frozen=True)
class OpenSession:
    """A session and what can be said of it.

    Attributes:
        session: the ONNX Runtime session.
        provider: the execution provider that really took the model.
        notes: remarks for the user, one line each.
        threads: CPU threads it was given.
    """

    session: onnxruntime.InferenceSession
    provider: str
    notes: tuple[str, ...]
    threads: int = 1


def open_session(
    path: Path, device: str = "auto", threads: int | None = None, ops: str = "standard", prepack: bool = True
) -> OpenSession:
    """Open a model file on a device.

    Args:
        path: the model file.
        device: one of `DEVICES`.
        threads: threads inside one operator; default `usable_cores`.
        ops: operators the file uses, ``ort`` or ``standard``, for advice on providers that know only the latter.
        prepack: lay out the weights anew for speed; without, a session opens sooner, in less memory, and runs slower.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        DeviceError: the device is unknown, or was asked for by name and is not there or does not start.
        ModelError: ONNX Runtime refuses the file.
    """
    if device not in DEVICES:
        raise DeviceError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
    threads = threads or usable_cores()
    if device != "auto":
        return _open_named(path, device, threads, ops, prepack)
    notes = []
    available = import_onnxruntime().get_available_providers()
    for candidate in _AUTOMATIC:
        if PROVIDERS[candidate] not in available:
            continue
        try:
            return _open_named(path, candidate, threads, ops, prepack)
        except (DeviceError, ModelError) as error:
            notes.append(f"{error} Running on the CPU.")
    notes = notes or ["this build of ONNX Runtime has no GPU provider"]
    return OpenSession(_session(path, [CPU], threads, prepack), CPU, tuple(notes), threads)


def import_onnxruntime() -> Any:
    """ONNX Runtime, imported only when something is to be run.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "ONNX Runtime is not installed. Install one of: pip install 'clip-toolkit[cpu]' | "
            "'clip-toolkit[gpu]' | 'clip-toolkit[openvino]'"
        ) from error
    return onnxruntime


def _open_named(path: Path, device: str, threads: int, ops: str, prepack: bool) -> OpenSession:
    provider = PROVIDERS[device]
    available = import_onnxruntime().get_available_providers()
    if provider not in available:
        raise DeviceError(
            f"device {device}: this build of ONNX Runtime has no {provider}, only {', '.join(available)}. "
            "Install the build that has it, or use --device cpu."
        )
    _load_libraries(device)
    session = _session(path, list(dict.fromkeys([provider, CPU])), threads, prepack)
    if provider not in session.get_providers():
        raise DeviceError(
            f"device {device}: {provider} did not start (driver or libraries missing?). Run: clip-infer --doctor"
        )
    return OpenSession(session, provider, _advice(device, ops), threads)


def _advice(device: str, ops: str) -> tuple[str, ...]:
    if ops == "ort" and device in _SPLIT_BY_FOREIGN_OPERATORS:
        return (f"this file uses com.microsoft operators, which slow {device} down. Export it with --ops standard.",)
    return ()


def _load_libraries(device: str) -> None:
    """CUDA and cuDNN may come as wheels, where the system's loader does not look."""
    preload = getattr(import_onnxruntime(), "preload_dlls", None)  # since ONNX Runtime 1.21
    if device in _NEED_CUDA and preload is not None:
        preload()


def _session(path: Path, providers: list[str], threads: int, prepack: bool) -> Any:
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        options.intra_op_num_threads = threads
        # Idle threads that spin would take the cores from those that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_prepacking", "0" if prepack else "1")
        # Without its fallback, which would go on on the CPU and leave the provider's name standing.
        return runtime.InferenceSession(os.fspath(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises its own classes, which share no base
        raise ModelError(f"{path}: ONNX Runtime cannot open it ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
