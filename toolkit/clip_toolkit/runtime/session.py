"""ONNX Runtime sessions: opened, compared with the metadata and run by one rule."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from clip_toolkit.errors import DeviceError, ModelError, first_line
from clip_toolkit.runtime import openvino_engine
from clip_toolkit.runtime.devices import (
    CPU,
    ONE_RUN_AT_A_TIME,
    advice,
    import_onnxruntime,
    outdated,
)
from clip_toolkit.runtime.memory import is_out_of_memory, memory_in_force
from clip_toolkit.runtime.openvino_engine import OpenVinoSession
from clip_toolkit.runtime.plugins import ALL_DEVICES, Engine, devices_of_auto, find_engine
from clip_toolkit.runtime.prepared import Prepared, find_prepared, unused
from clip_toolkit.runtime.processor import usable_cores
from clip_toolkit.spec.metadata import OLDEST_ONNXRUNTIME

if TYPE_CHECKING:
    import onnxruntime


class Opening(NamedTuple):
    """How a model file was opened, and can be opened again in another process.

    Attributes:
        path: of the file, absolute: the other process may have another working folder.
        device: as it was asked for.
        threads: likewise; None for all cores that the process may use.
        prepack: whether weights are laid out anew.
        throughput: whether a run has one thread, so that as many run at once as there are threads.
    """

    path: Path
    device: str = "auto"
    threads: int | None = None
    prepack: bool = True
    throughput: bool = False


class Session:
    """An open graph. Safe to share between threads.

    Attributes:
        provider: the execution provider that really took the graph.
        notes: remarks for the user, one line each.
        threads: CPU threads that it was given.
        opening: how its file was opened, or None for a graph in memory.
    """

    def __init__(
        self,
        inner: onnxruntime.InferenceSession | OpenVinoSession,
        provider: str = CPU,
        notes: tuple[str, ...] = (),
        threads: int = 1,
        opening: Opening | None = None,
    ) -> None:
        """Wrap an ONNX Runtime session; most callers want `open_session` or `open_graph`."""
        self.provider, self.notes, self.threads, self.opening = provider, notes, threads, opening
        self._inner = inner
        self._turn = Lock() if provider in ONE_RUN_AT_A_TIME else nullcontext()

    def check(self, inputs: Sequence[str], outputs: Mapping[str, int | str]) -> None:
        """Compare the graph with its metadata: names of inputs, and names and last dimensions of outputs.

        Raises:
            ModelError: the graph has others.
        """
        found = {output.name: output.shape[-1:] for output in self._inner.get_outputs()}
        expected = {name: [size] for name, size in outputs.items()}
        if found != expected:
            raise ModelError(
                f"the metadata declares the outputs {expected}, but the graph has {found}. Export the model again."
            )
        names = [item.name for item in self._inner.get_inputs()]
        if names != list(inputs):
            raise ModelError(
                f"the metadata declares the inputs {list(inputs)}, but the graph has {names}. Export the model again."
            )

    def may_take(self, name: str) -> bool:
        """Whether the graph has an input of this name that may be left out."""
        return name in {item.name for item in self._inner.get_overridable_initializers()}

    def providers(self) -> list[str]:
        """Return the execution providers that run some of the graph."""
        found: list[str] = self._inner.get_providers()
        return found

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Compute the named outputs.

        Raises:
            ModelError: ONNX Runtime fails.
        """
        try:
            with self._turn:
                found: list[NDArray[Any]] = self._inner.run(list(outputs), dict(feeds), _silent())
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed on {self.provider}: {_reason(error)}") from error
        return found


def open_session(
    path: Path,
    device: str = "auto",
    threads: int | None = None,
    ops: str = "standard",
    prepack: bool = True,
    *,
    throughput: bool = False,
    needs: str = OLDEST_ONNXRUNTIME,
) -> Session:
    """Open a model file on a device.

    Args:
        path: the model file.
        device: one of `clip_toolkit.runtime.plugins.ALL_DEVICES`.
        threads: threads inside one operator, or with ``throughput`` runs at once; default `usable_cores`.
        ops: operators the file uses, ``ort`` or ``standard``, for advice on providers that know only the latter.
        prepack: lay out the weights anew for speed; without, a session opens sooner, in less memory, and runs slower.
        throughput: on the CPU (OpenVINO included) give each run one thread: runs side by side wait for each other at
            every operator where they share theirs.
        needs: oldest version of ONNX Runtime that gives the file's answers; of an older one a note tells.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        DeviceError: the device is unknown, or was asked for by name and is not there or does not start.
        ModelError: ONNX Runtime refuses the file.
    """
    if device not in ALL_DEVICES:
        raise DeviceError(f"device: expected one of {', '.join(ALL_DEVICES)}, got {device!r}")
    opening = Opening(path.absolute(), device, threads, prepack, throughput)
    remark = outdated(needs)
    try:
        session = _open(path, opening, ops)
    except ModelError as error:
        if remark is None:
            raise
        raise ModelError(f"{error}: {remark}.") from error
    session.notes += (remark,) if remark else ()
    return session


def _open(path: Path, opening: Opening, ops: str) -> Session:
    if opening.device != "auto":
        return _open_on(opening.device, path, opening, ops)
    notes = []
    for candidate in devices_of_auto():
        try:
            return _open_on(candidate, path, opening, ops)
        except (DeviceError, ModelError) as error:
            notes.append(f"{error} Running on the CPU.")
    notes = notes or ["this build of ONNX Runtime has no GPU provider"]
    return _opened(path, Engine(CPU), tuple(notes), opening)


def open_graph(model: bytes | Path, threads: int | None = None, *, prepack: bool = True) -> Session:
    """Open a graph without metadata, from its bytes or its file, on the CPU.

    ``prepack`` is that of `open_session`.

    Raises:
        MissingDependencyError, ModelError: as `open_session`.
    """
    threads = threads or usable_cores()
    if isinstance(model, Path):
        return Session(_inner(os.fspath(model), str(model), Engine(CPU), threads, prepack=prepack), threads=threads)
    return Session(_inner(model, "the graph", Engine(CPU), threads, prepack=prepack), threads=threads)


def _open_on(device: str, path: Path, opening: Opening, ops: str) -> Session:
    engine = find_engine(device)
    session = _opened(path, engine, advice(device, ops), opening)
    if engine.provider not in session.providers():
        raise DeviceError(
            f"device {device}: {engine.provider} did not start (driver or libraries missing?). Run: clip-infer --doctor"
        )
    return session


def _opened(path: Path, engine: Engine, notes: tuple[str, ...], opening: Opening) -> Session:
    threads = opening.threads or usable_cores()
    prepared = find_prepared(path) if engine == Engine(CPU) and memory_in_force() is None else Prepared()
    remarks = prepared.remarks
    if prepared.graph is not None:
        try:
            inner = _inner(os.fspath(prepared.graph), str(path), engine, threads, throughput=opening.throughput)
            if find_prepared(path) == prepared:  # else its weights may be another's
                return Session(inner, engine.provider, (*notes, *remarks), threads, opening)
            remarks = (unused(path, "another process has made them anew meanwhile"),)
        except ModelError as error:
            remarks = (unused(path, str(error)),)
    inner = _inner(os.fspath(path), str(path), engine, threads, throughput=opening.throughput, prepack=opening.prepack)
    return Session(inner, engine.provider, (*notes, *remarks), threads, opening)


def _inner(
    model: bytes | str, name: str, engine: Engine, threads: int, *, throughput: bool = False, prepack: bool = True
) -> onnxruntime.InferenceSession | OpenVinoSession:
    if engine.provider == openvino_engine.PROVIDER:
        return _openvino(str(model), name, threads, runs=threads if throughput else 1)
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        options.intra_op_num_threads = 1 if throughput and engine.provider == CPU else threads
        # Idle threads that spin would take the cores from those that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_prepacking", "0" if prepack else "1")
        options.add_session_config_entry("session.use_env_allocators", "0" if memory_in_force() is None else "1")
        providers = None if engine.devices else list(dict.fromkeys([engine.provider, CPU]))
        if engine.devices:
            options.add_provider_for_devices(list(engine.devices), {})
        # Without its fallback, which would go on on the CPU and leave the provider's name standing.
        return runtime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises its own classes, which share no base
        raise ModelError(f"{name}: ONNX Runtime cannot open it ({_reason(error)})") from error


def _openvino(model: str, name: str, threads: int, *, runs: int) -> OpenVinoSession:
    if memory_in_force() is not None:
        raise DeviceError("device openvino: OpenVINO does not keep to --max-memory. Use --device cpu.")
    try:
        return openvino_engine.OpenVinoSession(model, threads, runs)
    except ImportError as error:
        raise DeviceError(f"device openvino: OpenVINO is damaged ({first_line(error)}). Install it anew.") from error
    except Exception as error:  # likewise
        reason = "files for it are made with --ops standard"
        raise ModelError(f"{name}: OpenVINO cannot open it: {reason} ({first_line(error)})") from error


@cache
def _silent() -> onnxruntime.RunOptions:
    """Options of a run which does not print what it raises as well."""
    options = import_onnxruntime().RunOptions()
    options.log_severity_level = 4
    return options


def _reason(error: Exception) -> str:
    if is_out_of_memory(error):
        return f"it takes more than the {memory_in_force()} MiB of --max-memory"
    return first_line(error)
