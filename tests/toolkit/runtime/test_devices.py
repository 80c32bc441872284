"""Devices: what is asked for, what there is, and what is said of it."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from clip_toolkit import DeviceError, MissingDependencyError, ModelError, load, selftest
from clip_toolkit.runtime import devices, openvino_engine, plugins
from clip_toolkit.runtime import session as runtime_session
from clip_toolkit.runtime.devices import CPU

CUDA, OPENVINO = "CUDAExecutionProvider", "OpenVINOExecutionProvider"


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch):
    """Let ONNX Runtime claim providers, of which only some really start."""

    def make(available: list[str], starting: list[str]) -> None:
        real = onnxruntime.InferenceSession

        def session(path: object, options: object, providers: list[str], **_: object) -> object:
            opened = real(path, options, providers=[CPU])
            started = [provider for provider in providers if provider in (*starting, CPU)]
            return SimpleNamespace(
                get_providers=lambda: started,
                get_inputs=opened.get_inputs,
                get_outputs=opened.get_outputs,
                run=opened.run,
            )

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)

    return make


def test_unknown_devices_name_the_known(demo: Path):
    with pytest.raises(DeviceError, match=r"auto, cpu, cuda.*got 'tpu'"):
        load(demo, device="tpu")


def test_a_named_device_that_is_not_there_fails_and_says_what_is(demo: Path, pretend):
    pretend([CPU], [])
    with pytest.raises(DeviceError, match=rf"no {CUDA}, only {CPU}"):
        load(demo, device="cuda")


def test_auto_on_a_plain_build_says_so_in_one_line(demo: Path, pretend):
    pretend([CPU], [])
    classifier = load(demo)
    (note,) = classifier.notes
    assert "no GPU provider" in note
    assert classifier.provider == CPU


def test_a_provider_that_does_not_start_fails_by_name_and_falls_back_by_auto(demo: Path, pretend):
    pretend([CUDA, CPU], [])
    with pytest.raises(DeviceError, match="did not start"):
        load(demo, device="cuda")
    classifier = load(demo)
    (note,) = classifier.notes
    assert "did not start" in note
    assert "Running on the CPU" in note
    assert classifier.provider == CPU


def test_auto_takes_a_gpu_that_works_and_lets_pillow_resize(demo: Path, pretend):
    pretend([CUDA, CPU], [CUDA])
    classifier = load(demo)
    assert (classifier.provider, classifier.notes, classifier.resize) == (CUDA, (), "pillow")
    with pytest.raises(ModelError, match=f"not known to be right on {CUDA}"):
        load(demo, resize="graph")


def test_advice_where_foreign_operators_are_slow(demo: Path, pretend):
    pretend([OPENVINO, CPU], [OPENVINO])
    (note,) = load(demo, device="openvino").notes
    assert "--ops standard" in note


def test_without_onnxruntime_the_message_says_what_to_install(demo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"clip-toolkit\[cpu\]"):
        load(demo)
    with pytest.raises(ImportError):
        load(demo)


def test_advice_is_not_given_where_the_file_needs_none(edited, pretend):
    pretend([OPENVINO, CPU], [OPENVINO])
    assert load(edited(lambda data: data.update(ops="standard")), device="openvino").notes == ()


@pytest.mark.parametrize("provider", [CUDA, "CoreMLExecutionProvider", "DmlExecutionProvider"])
def test_a_provider_that_raises_fails_by_name_and_falls_back_by_auto(
    demo: Path, monkeypatch: pytest.MonkeyPatch, provider: str
):
    real = onnxruntime.InferenceSession

    def session(path: object, options: object, providers: list[str], **_: object) -> object:
        if provider in providers:
            raise RuntimeError("no driver\nand a long trace")
        return real(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [provider, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    (device,) = (name for name, value in devices.PROVIDERS.items() if value == provider)
    with pytest.raises(ModelError, match="no driver"):
        load(demo, device=device)
    classifier = load(demo)
    (note,) = classifier.notes
    assert "no driver" in note
    assert "\n" not in note
    assert classifier.provider == CPU


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
@pytest.mark.parametrize(("threads", "expected"), [(3, 3), (None, 5)])
def test_threads_reach_the_session(  # the sessions are not opened: no threads are started
    demo: Path, monkeypatch: pytest.MonkeyPatch, device: str, threads: int | None, expected: int
):
    asked = []

    real = onnxruntime.InferenceSession

    def session(path: object, options: onnxruntime.SessionOptions, providers: list[str], **_: object) -> object:
        asked.append(options.intra_op_num_threads)
        opened = real(path, onnxruntime.SessionOptions(), providers=[CPU])
        return SimpleNamespace(
            get_providers=lambda: providers, get_inputs=opened.get_inputs, get_outputs=opened.get_outputs
        )

    monkeypatch.setattr(runtime_session, "usable_cores", lambda: 5)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    load(demo, device=device, threads=threads)
    assert asked == [expected]


WEBGPU = "WebGpuExecutionProvider"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The package of a plugin whose devices the test says, and which runs on the CPU in truth."""
    module = SimpleNamespace(get_ep_name=lambda: WEBGPU, get_library_path=lambda: "libwebgpu.so", devices=[], loaded=[])
    real = onnxruntime.InferenceSession

    def session(path: object, _: object, providers: list[str] | None, **__: object) -> object:
        opened = real(path, onnxruntime.SessionOptions(), providers=[CPU])
        started = [WEBGPU, CPU] if providers is None else providers
        methods = {name: getattr(opened, name) for name in ("get_inputs", "get_outputs", "run")}
        return SimpleNamespace(get_providers=lambda: started, **methods)

    class Options(onnxruntime.SessionOptions):
        def add_provider_for_devices(self, devices: list[object], settings: dict[str, str]) -> None:
            assert (devices, settings) == (module.devices[:1], {})

    monkeypatch.setattr(plugins, "_registered", {})
    monkeypatch.setattr(plugins, "find_spec", lambda name: module if name == "onnxruntime_ep_webgpu" else None)
    monkeypatch.setattr(plugins, "import_module", lambda _: module)
    monkeypatch.setattr(openvino_engine, "find_spec", lambda _: None)
    monkeypatch.setattr(
        onnxruntime, "register_execution_provider_library", lambda *arguments: module.loaded.append(arguments)
    )
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: module.devices)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU, *([WEBGPU] if module.loaded else [])])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    return module


def test_a_plugin_is_loaded_once_and_runs_beside_the_providers_that_are_built_in(demo: Path, plugin: SimpleNamespace):
    plugin.devices[:] = [SimpleNamespace(ep_name=WEBGPU), SimpleNamespace(ep_name=WEBGPU)]
    for device in ("webgpu", "auto", "webgpu"):
        assert load(demo, device=device).provider == WEBGPU
    assert plugin.loaded == [("onnxruntime_ep_webgpu", "libwebgpu.so")]
    assert plugins.installed_devices() == ["cpu", "webgpu"]
    assert load(demo, device="cpu").provider == CPU


@pytest.mark.usefixtures("plugin")
def test_a_plugin_that_finds_no_device_fails_by_name_and_falls_back_by_auto(demo: Path):
    with pytest.raises(DeviceError, match="onnxruntime-ep-webgpu finds no device on this machine"):
        load(demo, device="webgpu")
    classifier = load(demo)
    (note,) = classifier.notes
    assert "finds no device" in note
    assert classifier.provider == CPU


@pytest.mark.usefixtures("plugin")
def test_a_plugin_that_does_not_load_is_named(demo: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object) -> None:
        raise RuntimeError("libvulkan.so.1: cannot open\nand a trace")

    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", fails)
    for _ in range(2):
        with pytest.raises(DeviceError, match=r"onnxruntime-ep-webgpu does not load \(libvulkan.so.1: cannot open\)"):
            load(demo, device="webgpu")
    assert load(demo).provider == CPU


def test_a_plugin_that_is_not_installed_says_what_to_install(demo: Path):
    with pytest.raises(DeviceError, match="pip install onnxruntime-ep-nv-tensorrt-rtx"):
        load(demo, device="tensorrt-rtx")


class Port:
    """An input or output as OpenVINO gives it."""

    def __init__(self, port: Any) -> None:
        self.name, self.shape = port.name, port.shape

    def get_any_name(self) -> str:
        return self.name

    def get_partial_shape(self) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(is_static=isinstance(size, int), get_length=lambda size=size: size) for size in self.shape
        ]


@pytest.fixture
def openvino(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A package of that name, which computes with ONNX Runtime; returns what it is asked for."""
    asked: list[Any] = []
    real = onnxruntime.InferenceSession

    def compile_model(model: str, device: str, settings: dict[str, Any]) -> SimpleNamespace:
        asked.append((device, settings))
        opened = real(model, onnxruntime.SessionOptions(), providers=[CPU])
        inputs, outputs = (list(map(Port, ports())) for ports in (opened.get_inputs, opened.get_outputs))
        names = [port.name for port in outputs]
        request = SimpleNamespace(infer=lambda feeds: dict(zip(names, opened.run(names, feeds), strict=True)))
        return SimpleNamespace(inputs=inputs, outputs=outputs, output=str, create_infer_request=lambda: request)

    monkeypatch.setattr(openvino_engine, "find_spec", lambda _: asked)
    monkeypatch.setattr(plugins, "find_spec", lambda _: None)
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    core = SimpleNamespace(compile_model=compile_model)

    def import_module(_: str) -> SimpleNamespace:
        assert sys.modules["openvino_telemetry"] is None
        return SimpleNamespace(Core=lambda: core)

    monkeypatch.setattr(openvino_engine, "import_module", import_module)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    return asked


def test_openvino_itself_where_onnxruntime_has_none(demo: Path, openvino: list[Any], pixels: NDArray[np.uint8]):
    classifier = load(demo, device="openvino", threads=3)
    assert (classifier.provider, plugins.installed_devices()) == ("OpenVINO", ["cpu", "openvino"])
    load(demo, device="openvino", threads=3, throughput=True)
    settings = {"INFERENCE_NUM_THREADS": 3, "INFERENCE_PRECISION_HINT": "f32"}
    assert openvino == [("CPU", settings | {"NUM_STREAMS": runs}) for runs in (1, 3)]
    assert "openvino_telemetry" not in sys.modules
    expected = load(demo, device="cpu").predict(pixels).logits
    assert np.allclose(classifier.predict(pixels).logits, expected, atol=1e-5)
    assert all(drift.passed for drift in selftest(classifier))


def test_openvino_that_fails_is_named_and_keeps_no_limit_on_memory(
    demo: Path, openvino: list[Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runtime_session, "memory_in_force", lambda: 100)
    with pytest.raises(DeviceError, match="does not keep to --max-memory"):
        load(demo, device="openvino")
    monkeypatch.undo()
    monkeypatch.setattr(openvino_engine, "is_installed", lambda: True)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DeviceError, match="OpenVINO is damaged"):
        load(demo, device="openvino")
    assert openvino == []
