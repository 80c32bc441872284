"""Device names, and the execution providers of ONNX Runtime behind them."""

from __future__ import annotations

from typing import Any

from clip_toolkit.errors import DeviceError, MissingDependencyError
from clip_toolkit.spec.metadata import OLDEST_ONNXRUNTIME

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
"""What ``device`` may be, but for `clip_toolkit.runtime.plugins.PLUGINS`."""

RESIZES = ("pillow", "graph")
"""What ``resize`` may be: the host's Pillow, or the resize inside the model file."""

# What ``auto`` tries before the CPU: no compilers that take minutes or may be slower than a plain CPU.
_AUTOMATIC = ("cuda", "coreml", "directml")

_SPLIT_BY_FOREIGN_OPERATORS = ("tensorrt", "tensorrt-rtx", "openvino", "coreml", "qnn")
_NEED_CUDA = ("cuda", "tensorrt")

ONE_RUN_AT_A_TIME = (PROVIDERS["directml"],)
"""Providers whose sessions do not bear two runs at once (ONNX Runtime's page on the DirectML provider)."""


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


def outdated(needed: str) -> str | None:
    """Return what to say where ONNX Runtime is older than a file needs, or None.

    Args:
        needed: the file's ``onnxruntime``, ``major.minor``.
    """
    installed = import_onnxruntime().__version__
    if _comparable(installed) >= _comparable(needed):
        return None
    return f"the file needs ONNX Runtime {needed} or newer, and {installed} is installed: upgrade it"


def check_runs_texts() -> None:
    """Refuse an ONNX Runtime that computes texts of unequal length in one batch wrongly, without a word.

    Its MultiHeadAttention reads the masks of all but the first at wrong places: https://github.com/microsoft/onnxruntime/pull/24017.

    Raises:
        MissingDependencyError: it is older than `OLDEST_ONNXRUNTIME`.
    """
    installed = import_onnxruntime().__version__
    if _comparable(installed) < _comparable(OLDEST_ONNXRUNTIME):
        raise MissingDependencyError(
            f"texts need ONNX Runtime {OLDEST_ONNXRUNTIME} or newer, and {installed} is installed, which computes "
            "batches of them wrongly. Upgrade it: pip install -U onnxruntime"
        )


def _comparable(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def automatic_devices() -> list[str]:
    """Devices that ``auto`` tries before the CPU, of those that this build of ONNX Runtime has a provider for."""
    available = import_onnxruntime().get_available_providers()
    return [device for device in _AUTOMATIC if PROVIDERS[device] in available]


def find_provider(device: str) -> str:
    """Return the execution provider of a device, with its libraries loaded.

    Raises:
        DeviceError: this build of ONNX Runtime has none.
    """
    provider = PROVIDERS[device]
    available = import_onnxruntime().get_available_providers()
    if provider not in available:
        raise DeviceError(
            f"device {device}: this build of ONNX Runtime has no {provider}, only {', '.join(available)}. "
            "Install the build that has it, or use --device cpu."
        )
    _load_libraries(device)
    return provider


def advice(device: str, ops: str) -> tuple[str, ...]:
    """Remarks on running a file with ``ort`` or ``standard`` operators on a device, one line each."""
    if ops == "ort" and device in _SPLIT_BY_FOREIGN_OPERATORS:
        return (f"this file uses com.microsoft operators, which slow {device} down. Export it with --ops standard.",)
    return ()


def _load_libraries(device: str) -> None:
    """CUDA and cuDNN may come as wheels, where the system's loader does not look."""
    preload = getattr(import_onnxruntime(), "preload_dlls", None)  # since ONNX Runtime 1.21
    if device in _NEED_CUDA and preload is not None:
        preload()
