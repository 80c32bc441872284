"""OpenVINO itself (``pip install openvino``), behind the few methods of ONNX Runtime's session that `Session` calls."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from threading import local
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROVIDER = "OpenVINO"
"""What stands where others name the execution provider that ran."""


class _Port(NamedTuple):
    name: str
    shape: list[int | str]


class OpenVinoSession:
    """A graph that OpenVINO has compiled for the CPU. Safe to share between threads."""

    def __init__(self, model: str, threads: int, runs: int = 1) -> None:
        """Compile a file; raises whatever OpenVINO raises.

        Args:
            model: the file.
            threads: of all runs together.
            runs: how many happen at once; those beyond wait.
        """
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": runs,
            "INFERENCE_PRECISION_HINT": "f32",  # or processors with bfloat16 would round to it
        }
        self._compiled = _import_openvino().Core().compile_model(model, "CPU", settings)
        self._own = local()  # requests, one of which runs one batch at a time

    def get_inputs(self) -> list[_Port]:
        """Name the inputs."""
        return [_port(port) for port in self._compiled.inputs]

    def get_outputs(self) -> list[_Port]:
        """Name the outputs and their shapes."""
        return [_port(port) for port in self._compiled.outputs]

    def get_overridable_initializers(self) -> list[_Port]:
        """Return none: OpenVINO takes an input that may be left out for a constant."""
        return []

    def get_providers(self) -> list[str]:
        """Name what runs the graph."""
        return [PROVIDER]

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]], _: object = None) -> list[NDArray[Any]]:
        """Compute outputs."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        found = self._own.request.infer(dict(feeds))
        return [found[self._compiled.output(name)] for name in outputs]


def is_installed() -> bool:
    """Whether there is the package."""
    return find_spec("openvino") is not None


def _import_openvino() -> Any:
    """Import it without its telemetry, which would report the import; it then falls back on a stub of its own."""
    telemetry = "openvino_telemetry"
    if telemetry in sys.modules:
        return import_module("openvino")
    sys.modules[telemetry] = None  # type: ignore[assignment]  # not to be had
    try:
        return import_module("openvino")
    finally:
        sys.modules.pop(telemetry, None)


def _port(port: Any) -> _Port:
    """Dimensions that depend on the batch have no name here, as they have in ONNX: those of our files are its size."""
    shape = [size.get_length() if size.is_static else "batch" for size in port.get_partial_shape()]
    return _Port(port.get_any_name(), shape)
