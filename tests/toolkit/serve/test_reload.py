"""Models are replaced while they are used: all of them, or none."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_task_model
from serve_client import Client

from clip_serve import ServeOptions
from clip_serve.service import Service
from clip_toolkit import load
from clip_toolkit.errors import ModelError
from clip_toolkit.spec.tasks import MULTI_LABEL, SINGLE_LABEL


@pytest.fixture
def files(models: dict[str, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Two model files that may be overwritten."""
    shutil.copy(models[SINGLE_LABEL], tmp_path / "one.onnx")
    shutil.copy(models["text"], tmp_path / "two.onnx")
    return tmp_path / "one.onnx", tmp_path / "two.onnx"


def reload(service: Service) -> str:
    said: list[str] = []
    asyncio.run(service.reload(said.append))
    [line] = said
    return line


def test_a_new_file_answers_after_the_reload(
    start: Callable[[ServeOptions], Client], files: tuple[Path, Path], images: list[bytes]
):
    client = start(ServeOptions(tuple(map(str, files)), quiet=True))
    before = client.get("/v2/models/one").json["versions"]
    files[0].write_bytes(tiny_task_model.model(MULTI_LABEL))
    assert client.get("/v2/models/one").json["versions"] == before
    assert reload(client.service).startswith("reloaded: one ")
    assert client.get("/v2/models/one").json["versions"] != before
    [found] = client.post("/v1/predict", images[0], "image/jpeg").json["predictions"]
    assert tuple(found["labels"]) == load(files[0], "cpu").predict(images[0]).decisions


@pytest.mark.parametrize("damage", ["foreign", "gone", "cut short"])
def test_one_bad_file_keeps_all_models(damage: str, files: tuple[Path, Path]):
    service = Service(ServeOptions(tuple(map(str, files))))
    before = dict(service.models)
    files[0].write_bytes(tiny_task_model.model(MULTI_LABEL))
    content = {"foreign": b"no model at all", "cut short": files[1].read_bytes()[:-40]}.get(damage)
    files[1].unlink()
    if content is not None:
        files[1].write_bytes(content)
    assert reload(service).startswith("reload failed, the models stay as they are: ")
    assert service.models == before


def test_two_models_of_one_name_are_refused(files: tuple[Path, Path]):
    (files[0].parent / "other").mkdir()
    twin = files[0].parent / "other" / "one.onnx"
    shutil.copy(files[0], twin)
    with pytest.raises(ModelError, match="two models have this name"):
        Service(ServeOptions((str(files[0]), str(twin))))


def test_a_file_replaced_while_it_is_read_is_refused(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    def replaced(path: Path, *options: object, **others: object) -> object:
        found = load(path, *options, **others)
        path.write_bytes(tiny_task_model.model(MULTI_LABEL))
        return found

    monkeypatch.setattr("clip_serve.models.served.load", replaced)
    with pytest.raises(ModelError, match="replaced while it was read"):
        Service(ServeOptions((str(files[0]),)))


def test_the_notes_say_where_and_how_models_run(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    one, two = Service(ServeOptions(tuple(map(str, files)))).notes()
    assert one.startswith("one ")
    assert "CPUExecutionProvider" in one
    assert "batches up to 8" in one
    assert two.startswith("two ")
    assert "runs one by one" in two
    monkeypatch.setattr("clip_serve.models.served.exact_sizes", lambda *_: (1,))
    assert "batches would change digits" in Service(ServeOptions((str(files[0]),))).notes()[0]


def test_what_is_unloaded_stays_so_after_a_reload(files: tuple[Path, Path]):
    service = Service(ServeOptions(tuple(map(str, files))))
    asyncio.run(service.unload("one", lambda _: None))
    assert reload(service).startswith("reloaded: two ")
    assert list(service.models) == ["two"]


def test_a_file_half_written_over_another_is_refused(files: tuple[Path, Path]):
    """It may be a whole model file in all but its weights; its own golden answers tell."""
    weights = tiny_task_model.weights(MULTI_LABEL)
    mixed = weights.copy()
    mixed[1:] = mixed[:0:-1]
    new = tiny_task_model.model(MULTI_LABEL)
    service = Service(ServeOptions((str(files[0]),)))
    files[0].write_bytes(new.replace(weights.tobytes(), mixed.tobytes()))
    assert "does not give the answers that it was exported with" in reload(service)
    files[0].write_bytes(new)
    assert reload(service).startswith("reloaded: one ")
