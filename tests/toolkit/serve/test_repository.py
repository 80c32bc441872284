"""The repository extension: models are listed, loaded and unloaded by requests, where that is allowed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_task_model
from serve_client import Client

from clip_serve import ServeOptions
from clip_toolkit import load
from clip_toolkit.spec.tasks import MULTI_LABEL, SINGLE_LABEL

ONE = "/v2/repository/models/one"


@pytest.fixture
def admin(start: Callable[[ServeOptions], Client], models: dict[str, Path], tmp_path: Path) -> Client:
    """A service with two models that may be overwritten."""
    shutil.copy(models[SINGLE_LABEL], tmp_path / "one.onnx")
    shutil.copy(models["text"], tmp_path / "two.onnx")
    files = tuple(str(tmp_path / name) for name in ("one.onnx", "two.onnx"))
    return start(ServeOptions(files, admin=True, quiet=True))


def states(client: Client, **asked: bool) -> dict[str, str]:
    return {item["name"]: item["state"] for item in client.post("/v2/repository/index", asked).json}


def test_without_leave_every_request_is_refused(client: Client):
    before = dict(client.service.models)
    for path in ("/v2/repository/index", "/v2/repository/models/demo/load", "/v2/repository/models/demo/unload"):
        reply = client.post(path, b"")
        assert (reply.status, "--admin" in reply.error) == (403, True)
    assert client.service.models == before
    assert "model_repository" not in client.get("/v2").json["extensions"]


def test_a_model_is_unloaded_and_loaded(admin: Client, images: list[bytes]):
    assert "model_repository" in admin.get("/v2").json["extensions"]
    before = admin.post("/v1/predict", images[0], "image/jpeg").json["predictions"][0]["label"]
    for _ in range(2):  # the second has no effect
        assert (admin.post(f"{ONE}/unload", b"").status, admin.get("/v2/models/one/ready").status) == (200, 404)
    assert states(admin) == {"one": "UNAVAILABLE", "two": "READY"}
    assert states(admin, ready=True) == {"two": "READY"}
    assert admin.post("/v1/predict", images[0], "image/jpeg").status == 404
    assert admin.post(f"{ONE}/load", {"parameters": {}}).status == 200
    assert states(admin) == {"one": "READY", "two": "READY"}
    assert list(admin.service.models) == ["one", "two"]  # the first answers requests that name none
    assert admin.post("/v1/predict", images[0], "image/jpeg").json["predictions"][0]["label"] == before


def test_nothing_is_served_once_all_are_unloaded(admin: Client, images: list[bytes]):
    for name in ("one", "two"):
        assert admin.post(f"/v2/repository/models/{name}/unload", {}).status == 200
    assert "There is: none" in admin.post("/v1/predict?model=one", images[0], "image/jpeg").error
    assert admin.post("/v1/predict", images[0], "image/jpeg").status == 404
    assert admin.post("/v1/embeddings", {"input": "a"}).status == 404
    assert admin.get("/v1/models").json["data"] == []


def test_loading_reads_the_file_anew(admin: Client, images: list[bytes], tmp_path: Path):
    content = tiny_task_model.model(MULTI_LABEL)
    (tmp_path / "one.onnx").write_bytes(content)
    other = admin.service.models["two"]
    assert admin.post(f"{ONE}/load", b"").status == 200
    [found] = admin.post("/v1/predict", images[0], "image/jpeg").json["predictions"]
    assert tuple(found["labels"]) == load(tmp_path / "one.onnx", "cpu").predict(images[0]).decisions
    assert admin.service.models["two"] is other


def test_a_file_that_cannot_be_loaded_leaves_all_as_it_was(
    admin: Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    before = dict(admin.service.models)
    (tmp_path / "one.onnx").write_bytes(b"no model")
    reply = admin.post(f"{ONE}/load", b"")
    assert (reply.status, str(tmp_path) in reply.error) == (400, False)
    assert f"{tmp_path / 'one.onnx'}: " in capfd.readouterr().err
    assert admin.service.models == before


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/repository/models/three/load", b"", 404),
        ("/v2/repository/models/three/unload", b"", 404),
        (f"{ONE}/load", {"parameters": {"config": "{}"}}, 400),
        (f"{ONE}/load", {"parameters": []}, 400),
        (f"{ONE}/unload", {"parameters": {"unload_dependents": True}}, 200),
        (f"{ONE}/unload", b"[]", 400),
        ("/v2/repository/index", {"ready": "yes"}, 400),
    ],
)
def test_requests_that_follow_the_extension_and_others(path: str, body: object, status: int, admin: Client):
    assert admin.post(path, body).status == status
