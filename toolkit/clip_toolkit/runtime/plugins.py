"""Execution providers in packages of their own, which ONNX Runtime takes in beside those it was built with."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from typing import Any, NamedTuple

from clip_toolkit.errors import DeviceError, first_line
from clip_toolkit.runtime import openvino_engine
from clip_toolkit.runtime.devices import DEVICES, PROVIDERS, automatic_devices, find_provider, import_onnxruntime

PLUGINS = {
    "webgpu": ("onnxruntime-ep-webgpu", "onnxruntime_ep_webgpu"),
    "openvino": ("onnxruntime-ep-openvino", "onnxruntime_ep_openvino"),
    "tensorrt-rtx": ("onnxruntime-ep-nv-tensorrt-rtx", "onnxruntime_ep_nv_tensorrt_rtx"),
    "qnn": ("onnxruntime-qnn", "onnxruntime_qnn"),
}
"""Package and module of each device name. ``openvino`` is the plugin where ONNX Runtime was built without
OpenVINO, and where it finds no device OpenVINO itself, if that is installed."""

ALL_DEVICES = tuple(dict.fromkeys([*DEVICES, *PLUGINS]))
"""What ``device`` may be."""

FASTEST = "fastest"
"""In ``clip-infer``, the device that `clip_toolkit.fastest.fastest_device` finds."""

_AUTOMATIC = "webgpu"  # no compiler that takes minutes, as of the providers that are built in

_registered: dict[str, str] = {}
"""Provider of each plugin's module that this process has loaded: ONNX Runtime then lists it like those built in."""
_one_registers = Lock()


class Engine(NamedTuple):
    """What runs a graph.

    Attributes:
        provider: name of the execution provider.
        devices: those of a plugin (``OrtEpDevice``) that are to run it; none for a provider that is built in.
    """

    provider: str
    devices: tuple[Any, ...] = ()


def installed_devices() -> list[str]:
    """Return the devices, ``cpu`` first, for which a provider is built in or a plugin installed; it may not start."""
    found = [device for device, provider in PROVIDERS.items() if _is_built_in(provider)]
    native = ["openvino"] if openvino_engine.is_installed() else []
    return list(dict.fromkeys([*found, *filter(_is_installed, PLUGINS), *native]))


def devices_of_auto() -> list[str]:
    """Return what ``auto`` tries before the CPU, of what is installed."""
    return [*automatic_devices(), *filter(_is_installed, [_AUTOMATIC])]


def find_engine(device: str) -> Engine:
    """Return what runs a graph on a device, with its libraries loaded.

    Raises:
        DeviceError: there is none; the plugin is not installed, does not load, or knows no device of this machine.
    """
    if device != "openvino" or _is_built_in(PROVIDERS[device]) or not openvino_engine.is_installed():
        return _found(device)
    try:
        return _found(device)
    except DeviceError:  # neither built in nor a plugin that knows this machine, as on processors that are not Intel's
        return Engine(openvino_engine.PROVIDER)


def _found(device: str) -> Engine:
    provider = PROVIDERS.get(device)
    if provider is not None and (_is_built_in(provider) or not _is_installed(device)):
        return Engine(find_provider(device))
    package, module = PLUGINS[device]
    if not _is_installed(device):
        raise DeviceError(f"device {device}: {package} is not installed. Run: pip install {package}")
    try:
        provider = _register(module)
    except Exception as error:  # whatever its package or ONNX Runtime raises
        raise DeviceError(f"device {device}: {package} does not load ({first_line(error)})") from error
    devices = [found for found in import_onnxruntime().get_ep_devices() if found.ep_name == provider]
    if not devices:
        raise DeviceError(f"device {device}: {package} finds no device on this machine that it can run on.")
    return Engine(provider, (devices[0],))


def _is_built_in(provider: str) -> bool:
    return provider in import_onnxruntime().get_available_providers() and provider not in _registered.values()


def _is_installed(device: str) -> bool:
    return device in PLUGINS and find_spec(PLUGINS[device][1]) is not None


def _register(module: str) -> str:
    """Load a plugin, once in a process, and return the name of its provider."""
    with _one_registers:
        if module not in _registered:
            plugin = import_module(module)
            import_onnxruntime().register_execution_provider_library(module, plugin.get_library_path())
            _registered[module] = plugin.get_ep_name()
    return _registered[module]
