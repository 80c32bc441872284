"""``/v1/predict``: every way to send an image gives what the runtime gives."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task_model
from PIL import Image
from serve_client import Client

from clip_serve import ServeOptions
from clip_serve.options import BatchingOptions
from clip_toolkit import Classifier, load
from clip_toolkit.explaining.overlay import explained_label, laid_over_seen
from clip_toolkit.spec.tasks import SINGLE_LABEL, TASKS


def as_form(client: Client, image: bytes) -> Any:
    return client.upload("/v1/predict", [("a.jpg", image)], top_k="10", embedding="true")


def as_body(client: Client, image: bytes) -> Any:
    return client.post("/v1/predict?top_k=10&embedding=1", image, "image/jpeg")


def as_json(client: Client, image: bytes) -> Any:
    text = base64.b64encode(image).decode()
    return client.post("/v1/predict", {"image": text, "top_k": 10, "embedding": True})


def as_json_with_a_query(client: Client, image: bytes) -> Any:
    given = {"image": base64.b64encode(image).decode(), "model": None, "top_k": None}
    return client.post("/v1/predict?model=demo&top_k=10&embedding=true", given)


def as_data_url(client: Client, image: bytes) -> Any:
    text = "data:image/jpeg;base64," + base64.b64encode(image).decode()
    return client.post("/v1/predict", {"images": [text], "top_k": 10, "embedding": True})


@pytest.mark.parametrize("send", [as_form, as_body, as_json, as_json_with_a_query, as_data_url])
def test_answers_are_those_of_the_runtime_to_the_bit(
    send: Callable[[Client, bytes], Any], client: Client, images: list[bytes], classifier: Classifier
):
    for image in images:
        [found] = send(client, image).json["predictions"]
        expected = classifier.predict(image)
        assert found["label"] == expected.label
        assert found["probability"] == expected.probability
        assert found["top"] == [score._asdict() for score in expected.top(10)]
        assert found["embedding"] == expected.embedding.tolist()
        assert found["provider"] == expected.provider
        assert set(found["milliseconds"]) == {"decode", "queue", "compute"}


def test_runs_that_decode_give_the_same_answers_beside_bad_images(
    start: Callable[[ServeOptions], Client], demo: Path, images: list[bytes], classifier: Classifier
):
    client = start(ServeOptions(models=(str(demo),), batching=BatchingOptions(throughput=True), quiet=True))
    sent = [images[number % len(images)] if number % 7 else b"no image" for number in range(42)]
    with ThreadPoolExecutor(14) as threads:
        replies = [*threads.map(lambda image: as_body(client, image), sent)]
    for image, reply in zip(sent, replies, strict=True):
        if image == b"no image":
            assert (reply.status, reply.error[:6]) == (400, "image:")
        else:
            assert reply.json["predictions"][0]["embedding"] == classifier.predict(image).embedding.tolist()


def test_texts_go_with_their_images(client: Client, images: list[bytes], models: dict[str, Path]):
    fused = load(models["fused"], "cpu")
    files = [("a.png", images[0]), ("b.png", images[1])]
    found = client.upload("/v1/predict?model=fused", files, text="red circle").json
    assert found["model"] == "fused"
    for item, image in zip(found["predictions"], images, strict=False):
        expected = fused.predict(image, "red circle")
        assert (item["probability"], item["text"]) == (expected.probability, "red circle")
    given = {
        "model": "fused",
        "images": [base64.b64encode(image).decode() for image in images[:2]],
        "texts": ["", "red"],
    }
    texts = [item["text"] for item in client.post("/v1/predict", given).json["predictions"]]
    assert texts == ["", "red"]


def test_the_query_names_the_model_whatever_the_body_is(client: Client, images: list[bytes]):
    encoded = base64.b64encode(images[0]).decode()
    for reply in (
        client.post("/v1/predict?model=fused&text=red", images[0], "image/jpeg"),
        client.post("/v1/predict?model=fused&text=red", {"image": encoded}),
        client.upload("/v1/predict?model=fused&text=red", [("a.jpg", images[0])]),
    ):
        assert (reply.json["model"], reply.json["predictions"][0]["text"]) == ("fused", "red")


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_its_record(task: str, client: Client, images: list[bytes], models: dict[str, Path]):
    expected = load(models[task], "cpu").predict(images[0])
    [found] = client.post(f"/v1/predict?model={task}", images[0], "image/jpeg").json["predictions"]
    assert found.get("values", {}) == expected.values
    assert tuple(found.get("labels", expected.decisions)) == expected.decisions


_HEADER = b"IHDR" + struct.pack(">2I5B", 65535, 65535, 8, 2, 0, 0, 0)
BOMB = b"\x89PNG\r\n\x1a\n\0\0\0\r" + _HEADER + struct.pack(">I", zlib.crc32(_HEADER)) + b"\0\0\0\0IDAT" + b"\0" * 40
"""A PNG that says it has 65535 x 65535 pixels."""

BAD_JSON = {
    "no JSON": (b"{", "is not JSON"),
    "nested": (b"[" * 100_000, "is not JSON"),
    "a list": (b"[]", "expected an object"),
    "no image": (b"{}", "expected 1 to 128, got 0"),
    "a number": (b'{"image": 3}', "expected a string"),
    "a URL": (b'{"image": "http://127.0.0.1/a.jpg"}', "URLs are not fetched"),
    "another URL": (b'{"image": "data:text/plain,a"}', "data: URL in base64"),
    "no base64": (b'{"image": "?"}', "expected base64"),
    "no picture": (b'{"image": "bm8gaW1hZ2UgYXQgYWxs"}', "not an image"),
    "top_k": (b'{"image": "AAAA", "top_k": 0}', "top_k: expected a whole number"),
    "embedding": (b'{"image": "AAAA", "embedding": "yes"}', "embedding: expected true or false"),
    "misspelt": (b'{"image": "AAAA", "topk": 3}', "'topk' is not asked for here"),
    "a text": (b'{"image": "AAAA", "text": "red"}', "reads images alone"),
    "two texts": (b'{"images": ["AAAA", "AAAA", "AAAA"], "texts": ["red", "blue"]}', "one for each of 3"),
    "half a pair": (b'{"image": "AAAA", "text": "\\ud800"}', ""),
    "a model that is no text": (b'{"image": "AAAA", "model": 3}', "model: expected a string"),
    "a text tower": (b'{"image": "AAAA", "model": "text"}', "reads texts alone"),
    "no text": (b'{"image": "AAAA", "model": "fused"}', "reads a text with each image"),
}


@pytest.mark.parametrize(("body", "message"), BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json_is_refused(body: bytes, message: str, client: Client):
    reply = client.post("/v1/predict", body)
    assert reply.status == 400
    assert message in reply.error


@pytest.mark.parametrize(
    ("kind", "body", "status", "message"),
    [
        ("text/plain", b"a", 415, "expected multipart/form-data"),
        ("image/png", b"", 400, "is empty"),
        ("image/png", BOMB, 400, "more than the limit"),
        ("multipart/form-data", b"a", 400, "boundary"),
        ("multipart/form-data; boundary=a", b"--a\r\n", 400, "expected 1 to 128"),
        ("multipart/form-data; boundary=a", b"nothing of the kind", 400, "multipart"),
    ],
)
def test_bad_bodies_are_refused(kind: str, body: bytes, status: int, message: str, client: Client):
    reply = client.post("/v1/predict", body, kind)
    assert (reply.status, message in reply.error) == (status, True), reply


def test_one_bad_image_refuses_the_request(client: Client, images: list[bytes]):
    reply = client.upload("/v1/predict", [("good.jpg", images[0]), ("bad.jpg", images[1][:300])])
    assert reply.status == 400
    assert reply.error.startswith("bad.jpg: ")
    assert "truncated" in reply.error
    reply = client.post("/v1/embeddings", {"input": [{"image": "AAAA"}]})
    assert reply.json["error"]["message"].startswith("input[0]: ")


def test_an_unknown_model_is_not_found(client: Client, images: list[bytes]):
    reply = client.post("/v1/predict?model=heard-of", images[0], "image/jpeg")
    assert reply.status == 404
    assert "There is: demo" in reply.error


def test_what_speaks_for_the_label_comes_as_a_picture(
    start: Callable[[ServeOptions], Client], client: Client, images: list[bytes], tmp_path: Path
):
    path = tmp_path / "explained.onnx"
    path.write_bytes(tiny_task_model.model(SINGLE_LABEL, relevance=True))
    telling = start(ServeOptions(models=(str(path),), quiet=True))
    [card] = telling.get("/v1/models").json["data"]
    assert card["explains"] is True
    [found] = telling.post("/v1/predict?overlay=true", images[0], "image/jpeg").json["predictions"]
    classifier = load(path, device="cpu")
    expected, pixels = classifier.predict(images[0]), Image.fromarray(classifier.pixels(images[0]))
    assert found["overlay"]["shows"] == explained_label(expected)
    head, encoded = found["overlay"]["image"].split(",")
    assert head == "data:image/png;base64"
    drawn = laid_over_seen(pixels, expected.relevance)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))), np.asarray(drawn))
    [plain] = telling.post("/v1/predict", images[0], "image/jpeg").json["predictions"]
    assert "overlay" not in plain
    refused = client.post("/v1/predict?overlay=true", images[0], "image/jpeg")
    assert refused.status == 400
    assert "clip-export --explain" in refused.error
    assert not any(each["explains"] for each in client.get("/v1/models").json["data"])
