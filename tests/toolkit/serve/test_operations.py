"""What those who run the service see: figures, log, ids; the OpenAPI document and the page."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import pytest
from serve_client import Client
from starlette.routing import Route

from clip_serve import ServeOptions
from clip_serve.metrics import Metrics
from clip_serve.middleware import access_log
from clip_serve.options import LimitOptions
from clip_toolkit import Classifier, ModelError

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def fresh(start: Callable[[ServeOptions], Client], demo: Path) -> Client:
    """A service of its own, which writes its log."""
    return start(ServeOptions((str(demo),), limits=LimitOptions(max_queue=5)))


def test_figures_count_what_was_done(fresh: Client, images: list[bytes], classifier: Classifier):
    for _ in range(3):
        fresh.upload("/v1/predict", [("a.jpg", image) for image in images])
    assert fresh.post("/v1/predict", b"no image", "image/jpeg").status == 400
    text = fresh.get("/metrics").body.decode()
    figures = {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE)}
    [served] = fresh.service.models.values()
    model = f'{{model="demo",version="{served.version}"}}'
    assert figures[f"nv_inference_request_success{model}"] == 3
    assert figures[f"nv_inference_request_failure{model}"] == 1
    assert figures[f"nv_inference_count{model}"] == 3 * len(images)
    assert 3 <= figures[f"nv_inference_exec_count{model}"] <= 3 * len(images)
    assert figures[f"nv_inference_compute_infer_duration_us{model}"] > 0
    assert figures['clip_serve_queue_seconds_count{model="demo"}'] == 3 * len(images)
    assert figures['clip_serve_responses_total{endpoint="predict",status="400"}'] == 1
    labels = [classifier.predict(image).label for image in images]
    for label in set(labels):
        name = f'clip_serve_predictions_total{{label="{label}",model="demo"}}'
        assert figures[name] == 3 * labels.count(label)


def test_novel_images_are_counted_of_files_that_tell_them(classifier: Classifier, images: list[bytes]):
    metrics, prediction = Metrics(), classifier.predict(images[0])
    figures = metrics.of_model("told", "1")
    for novelty in (0.5, 2.0, None):
        limit = None if novelty is None else 1.0
        figures.answered(replace(prediction, novelty=novelty, novelty_threshold=limit), 0.0, 0.0)
    assert b'clip_serve_novel_total{model="told"} 1.0' in metrics.text()


class Log:
    """The log as a file: pytest's capture loses what is written between its reading and its emptying."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def lines(self, count: int) -> list[str]:
        """So many lines, which are written once the answer is on its way."""
        deadline = time.monotonic() + 60
        while (text := Path(self._file.name).read_text(encoding="utf-8")).count("\n") < count:
            assert time.monotonic() < deadline, text
            time.sleep(0.001)
        return text.splitlines()


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    with (tmp_path / "log").open("w", encoding="utf-8", buffering=1) as file:
        monkeypatch.setattr(access_log, "sys", SimpleNamespace(stderr=file))
        yield Log(file)


def test_the_log_has_a_line_for_each_request(fresh: Client, images: list[bytes], log: Log):
    reply = fresh.post("/v1/predict", images[0], "image/jpeg", x_request_id="mine", traceparent=TRACE)
    assert (reply.headers["x-request-id"], reply.headers["traceparent"]) == ("mine", TRACE)
    other = fresh.get("/v2/\x1b[31m".replace("\x1b", "%1b"), x_request_id="two words", traceparent="none")
    assert re.fullmatch(r"[0-9a-f]{32}", other.headers["x-request-id"])
    assert "traceparent" not in other.headers
    lines = log.lines(2)
    first, second = map(json.loads, lines)
    assert first["time"].endswith("+00:00")
    del first["time"], first["seconds"]
    [served] = fresh.service.models.values()
    assert first == {
        "id": "mine",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1/predict",
        "status": 200,
        "model": "demo",
        "version": served.version,
        "items": 1,
        "traceparent": TRACE,
    }
    assert second["status"] == 404
    assert "\x1b" not in lines[1]


def test_a_failure_inside_is_told_to_the_log_alone(
    fresh: Client, images: list[bytes], log: Log, monkeypatch: pytest.MonkeyPatch
):
    [served] = fresh.service.models.values()

    def fail(_: object) -> None:
        raise ModelError("/secret/model.onnx: broken")

    monkeypatch.setattr(served._batcher, "_compute", fail)
    reply = fresh.post("/v1/predict", images[0], "image/jpeg", x_request_id="it")
    assert (reply.status, "secret" in reply.error) == (500, False)
    failure, _ = map(json.loads, log.lines(2))
    assert (failure["id"], "/secret/model.onnx: broken" in failure["error"]) == ("it", True)


def test_every_endpoint_is_in_the_document(client: Client):
    document = client.get("/openapi.json").json
    served = {}
    for route in client.app.routes:
        assert isinstance(route, Route)
        served[route.path] = {method.lower() for method in route.methods or () if method != "HEAD"}
    assert {path: set(item) for path, item in document["paths"].items()} == served


def test_the_page_loads_nothing_from_elsewhere(client: Client):
    reply = client.get("/")
    assert reply.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert re.findall(r"""(?:src|href)=["']?(?!data:)[a-z]""", reply.body.decode()) == []


def test_models_are_listed_with_their_cards(client: Client, models: dict[str, Path]):
    found = {item["id"]: item for item in client.get("/v1/models").json["data"]}
    assert list(found) == list(models)
    assert dict(found["demo"]["card"])["task"] == "single-label"
    assert (found["text"]["inputs"], found["fused"]["inputs"]) == (["text"], ["image", "text"])
