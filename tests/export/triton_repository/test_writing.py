"""Model repositories for Triton: their configurations are Triton's, and their models give the runtime's answers.

Triton itself is not run. Its client's protobuf classes read the configurations; the Python model runs beside a stand-in
for the module that Triton provides, which has no more than a tensor, a response and an error; the network's file is run
on what the configuration lets in.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_fused_model
import tiny_task_model
from PIL import Image

from clip_export.triton_repository.writing import check_repository, write_repository
from clip_toolkit import load
from clip_toolkit.errors import OutputError
from clip_toolkit.images.preprocess import normalise
from clip_toolkit.spec.metadata import SPEC_KEY
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

DEMO = Path(__file__).parents[3] / "models" / "demo.onnx"
TYPES = {"TYPE_UINT8": "tensor(uint8)", "TYPE_FP32": "tensor(float)", "TYPE_INT64": "tensor(int64)"}


class Tensor(NamedTuple):
    """What Triton hands over."""

    name: str
    values: np.ndarray[Any, Any]

    def as_numpy(self) -> np.ndarray[Any, Any]:
        return self.values


class TritonError(NamedTuple):
    """What is wrong with a request."""

    message: str
    code: int = 0
    INVALID_ARG = 3


def stand_in() -> ModuleType:
    found = ModuleType("triton_python_backend_utils")
    found.Tensor, found.TritonError = Tensor, TritonError  # type: ignore[attr-defined]
    found.InferenceResponse = lambda output_tensors, error=None: SimpleNamespace(  # type: ignore[attr-defined]
        tensors={tensor.name: tensor.values for tensor in output_tensors}, error=error
    )
    found.get_input_tensor_by_name = lambda request, name: request[name]  # type: ignore[attr-defined]
    return found


@pytest.fixture
def decode(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the Python model of a repository on requests of bytes."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stand_in())

    def run(folder: Path, *requests: dict[str, list[bytes]]) -> list[Any]:
        spec = importlib.util.spec_from_file_location("model", folder / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        model.initialize({"model_version": folder.name})
        return model.execute(
            [
                {name: Tensor(name, np.array(items, object)[:, None]) for name, items in request.items()}
                for request in requests
            ]
        )

    return run


def written(tmp_path: Path, content: bytes) -> tuple[Path, Path]:
    """A model file and the repository with it."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert write_repository(path, tmp_path / "repository") == ["model", "model_decode", "model_images"]
    return path, tmp_path / "repository"


def config(folder: Path) -> Any:
    """The configuration of a model, as Triton reads it."""
    pytest.importorskip("grpc", reason="needs grpcio, without which Triton's client has no protobuf classes")
    protobuf = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient")
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), protobuf.ModelConfig())


def pictures() -> list[bytes]:
    found = []
    for size, colour in (((90, 60), (200, 30, 40)), ((33, 70), (10, 90, 250)), ((64, 64), (0, 0, 0))):
        buffer = io.BytesIO()
        Image.new("RGB", size, colour).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


@pytest.mark.parametrize("task", ["demo", SINGLE_LABEL, MULTI_LABEL, REGRESSION, "fused"])
def test_the_models_in_a_row_give_what_the_runtime_gives(task: str, tmp_path: Path, decode: Callable[..., Any]):
    made = {"demo": DEMO.read_bytes, "fused": tiny_fused_model.model}
    path, repository = written(tmp_path, made[task]() if task in made else tiny_task_model.model(task))
    classifier = load(path, "cpu")
    network = onnxruntime.InferenceSession(repository / "model" / "1" / "model.onnx")
    names = [output.name for output in network.get_outputs()]
    for image in pictures():
        text = {"text": [b"red circle"]} if task == "fused" else {}
        [response] = decode(repository / "model_decode" / "1", {"image": [image], **text})
        assert response.error is None
        feeds = {"image" if name == "pixels" else name: values for name, values in response.tensors.items()}
        found = dict(zip(names, network.run(names, feeds), strict=True))
        expected = classifier.predict(image, "red circle" if text else None)
        assert found["embedding"][0].tobytes() == expected.embedding.tobytes()
        assert found["values" if task == REGRESSION else "logits"][0].tobytes() == expected.logits.tobytes()
        if task != REGRESSION:
            assert found["probabilities"][0].tobytes() == expected.probabilities.tobytes()


@pytest.mark.parametrize("task", ["demo", SINGLE_LABEL, REGRESSION, "fused"])
def test_the_configurations_are_tritons_and_fit_the_network(task: str, tmp_path: Path):
    made = {"demo": DEMO.read_bytes, "fused": tiny_fused_model.model}
    path, repository = written(tmp_path, made[task]() if task in made else tiny_task_model.model(task))
    network, decoder, ensemble = (config(repository / name) for name in ("model", "model_decode", "model_images"))
    session = onnxruntime.InferenceSession(path)
    for declared, real in ((network.input, session.get_inputs()), (network.output, session.get_outputs())):
        kinds = {
            tensor.name: TYPES[tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values[tensor.data_type].name]
            for tensor in declared
        }
        assert kinds == {item.name: item.type for item in real}
        for tensor, item in zip(declared, real, strict=True):
            assert all(
                size in (-1, known) or isinstance(known, str)
                for size, known in zip(tensor.dims, item.shape[1:], strict=True)
            )
    size = read_spec(path).preprocessing.size
    assert list(network.input[0].dims) == [size, size, 3]
    assert (network.backend, decoder.backend, ensemble.platform) == ("onnxruntime", "python", "ensemble")
    assert [step.model_name for step in ensemble.ensemble_scheduling.step] == [decoder.name, network.name]
    assert {network.max_batch_size, decoder.max_batch_size, ensemble.max_batch_size} == {1 if task == "fused" else 8}
    assert network.HasField("dynamic_batching") == (task != "fused")
    assert [output.label_filename for output in network.output if output.name == "probabilities"] == (
        [] if task == REGRESSION else ["labels.txt"]
    )
    first, second = ensemble.ensemble_scheduling.step
    assert set(first.input_map) == {tensor.name for tensor in decoder.input}
    assert set(first.output_map) == {tensor.name for tensor in decoder.output}
    assert set(second.input_map) == {tensor.name for tensor in network.input}
    assert set(second.input_map.values()) == set(first.output_map.values())
    assert dict(second.output_map) == {tensor.name: tensor.name for tensor in ensemble.output}


def test_a_network_of_pixel_values_gets_them(tmp_path: Path, decode: Callable[..., Any]):
    model = onnx.load(DEMO)
    spec = replace(read_spec(DEMO), input="pixels")
    onnx.helper.set_model_props(model, {SPEC_KEY: spec.to_json()})
    _, repository = written(tmp_path, model.SerializeToString())
    size = spec.preprocessing.size
    tensor = f'name: "pixel_values" data_type: TYPE_FP32 dims: [ 3, {size}, {size} ]'
    assert tensor in (repository / "model" / "config.pbtxt").read_text()
    [response] = decode(repository / "model_decode" / "1", {"image": pictures()})
    expected = np.stack([load(DEMO, "cpu").pixels(image) for image in pictures()])
    assert np.array_equal(response.tensors["pixels"], normalise(expected, spec.preprocessing))


def test_a_file_with_ranges_found_at_run_time_runs_one_by_one(tmp_path: Path):
    model = onnx.load_from_string(tiny_task_model.model(MULTI_LABEL))
    outputs = ["rounded", "scale", "zero"]
    model.graph.node.append(onnx.helper.make_node("DynamicQuantizeLinear", ["embedding"], outputs))
    _, repository = written(tmp_path, model.SerializeToString())
    for name in ("model", "model_decode", "model_images"):
        text = (repository / name / "config.pbtxt").read_text()
        assert "max_batch_size: 1\n" in text
        assert "dynamic_batching" not in text


def test_what_cannot_be_decoded_is_refused_alone(tmp_path: Path, decode: Callable[..., Any]):
    _, repository = written(tmp_path, tiny_fused_model.model())
    good, image, text = decode(
        repository / "model_decode" / "1",
        {"image": [pictures()[0]], "text": [b"red"]},
        {"image": [b"no image"], "text": [b"red"]},
        {"image": [pictures()[0]], "text": [b"\xff"]},
    )
    assert good.error is None
    assert (image.error.code, "not an image" in image.error.message) == (TritonError.INVALID_ARG, True)
    assert (text.error.code, "expected UTF-8" in text.error.message) == (TritonError.INVALID_ARG, True)


def test_another_file_becomes_the_next_version_and_another_kind_is_refused(tmp_path: Path):
    path, repository = written(tmp_path, tiny_task_model.model(MULTI_LABEL))
    before = path.read_bytes()
    path.write_bytes(before.replace(tiny_task_model.weights(MULTI_LABEL).tobytes(), bytes(48)))
    write_repository(path, repository)
    for name in ("model", "model_decode", "model_images"):
        assert sorted(item.name for item in (repository / name).iterdir() if item.is_dir()) == ["1", "2"]
    assert (repository / "model" / "1" / "model.onnx").read_bytes() == before
    assert (repository / "model" / "2" / "model.onnx").read_bytes() == path.read_bytes()
    path.write_bytes(tiny_task_model.model(SINGLE_LABEL))
    with pytest.raises(OutputError, match="all versions of a model share it"):
        write_repository(path, repository)
    assert not (repository / "model" / "3").exists()
    assert sorted(item.name for item in repository.iterdir()) == ["model", "model_decode", "model_images"]


@pytest.mark.parametrize("name", ["my model.onnx", "m\N{LATIN SMALL LETTER U WITH DIAERESIS}.onnx", 'a".onnx'])
def test_names_that_triton_does_not_have_are_refused(name: str, tmp_path: Path):
    with pytest.raises(OutputError, match="a Triton model's name"):
        check_repository(tmp_path / name, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_a_repository_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"file.*: cannot be written"):
        check_repository(DEMO, tmp_path / "file" / "repository")
