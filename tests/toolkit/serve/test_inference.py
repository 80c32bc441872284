"""The Open Inference Protocol: metadata, JSON tensors, binary tensors, encoded images, and what is refused."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from serve_client import Client, Reply

from clip_toolkit import Classifier, Prediction, load, load_text
from clip_toolkit.spec.tasks import REGRESSION

INFER = "/v2/models/demo/infer"
LENGTH = "Inference_Header_Content_Length"


def tensor(name: str, datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def binary(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def send_binary(client: Client, request: object, rest: bytes, path: str = INFER) -> Reply:
    head = json.dumps(request).encode()
    return client.post(path, head + rest, "application/octet-stream", **{LENGTH: str(len(head))})


def check(reply: Reply, expected: list[Prediction]) -> None:
    assert reply.status == 200, reply
    found = {item["name"]: item for item in reply.json["outputs"]}
    assert set(found) == {"probabilities", "logits", "embedding"}
    for name, item in found.items():
        rows = np.stack([getattr(prediction, name) for prediction in expected])
        assert (item["datatype"], item["shape"]) == ("FP32", list(rows.shape))
        assert np.array(item["data"], np.float32).tobytes() == rows.tobytes()


def test_health_and_metadata(client: Client):
    assert client.get("/v2/health/live").status == client.get("/v2/health/ready").status == 200
    assert client.get("/v2").json["extensions"] == ["binary_tensor_data", "classification"]
    found = client.get("/v2/models/demo").json
    [version] = found["versions"]
    assert found["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert [item["name"] for item in found["outputs"]] == ["probabilities", "logits", "embedding"]
    assert found["parameters"]["labels"][0] == "arrow"
    assert client.get(f"/v2/models/demo/versions/{version}").json == found
    assert client.get(f"/v2/models/demo/versions/{version}/ready").status == 200
    for path in ("/v2/models/demo/versions/1", "/v2/models/no", "/v2/models/no/ready", "/v2/nothing"):
        reply = client.get(path)
        assert (reply.status, isinstance(reply.error, str)) == (404, True)


def test_json_tensors(client: Client, pixels: NDArray[np.uint8], classifier: Classifier):
    batch = np.stack([pixels, pixels[::-1]])
    expected = [classifier.predict(image) for image in batch]
    for data in (batch.tolist(), batch.ravel().tolist()):
        reply = client.post(INFER, {"id": "7", "inputs": [tensor("image", "UINT8", list(batch.shape), data)]})
        check(reply, expected)
        assert reply.json["id"] == "7"
        assert reply.json["model_name"] == "demo"


def test_encoded_images_in_json_are_base64(client: Client, images: list[bytes], classifier: Classifier):
    data = [base64.b64encode(image).decode() for image in images]
    reply = client.post(INFER, {"inputs": [tensor("image", "BYTES", [len(images)], data)]})
    check(reply, [classifier.predict(image) for image in images])


@pytest.mark.parametrize("shape", [[1], [1, 1]])
def test_binary_tensors_both_ways(shape: list[int], client: Client, images: list[bytes], classifier: Classifier):
    rest = struct.pack("<I", len(images[0])) + images[0]
    request = {
        "inputs": [binary("image", "BYTES", shape, len(rest))],
        "outputs": [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "embedding"}],
    }
    reply = send_binary(client, request, rest)
    expected, split = classifier.predict(images[0]), int(reply.headers["inference-header-content-length"])
    logits, embedding = json.loads(reply.body[:split])["outputs"]
    assert logits["parameters"] == {"binary_data_size": expected.logits.nbytes}
    assert reply.body[split:] == expected.logits.tobytes()
    assert embedding["data"] == expected.embedding.tolist()


def test_a_binary_uint8_tensor_and_all_outputs_binary(
    client: Client, pixels: NDArray[np.uint8], classifier: Classifier
):
    request = {"inputs": [binary("image", "UINT8", [1, *pixels.shape], pixels.size)]}
    reply = send_binary(client, request | {"parameters": {"binary_data_output": True}}, pixels.tobytes())
    expected = classifier.predict(pixels)
    tail = expected.probabilities.tobytes() + expected.logits.tobytes() + expected.embedding.tobytes()
    assert reply.body[int(reply.headers["inference-header-content-length"]) :] == tail


def test_classification_names_labels(client: Client, pixels: NDArray[np.uint8], classifier: Classifier):
    outputs = [{"name": "probabilities", "parameters": {"classification": 2}}]
    request = {"inputs": [tensor("image", "UINT8", [1, *pixels.shape], pixels.tolist() and [pixels.tolist()])]}
    [found] = client.post(INFER, request | {"outputs": outputs}).json["outputs"]
    labels = list(classifier.spec.labels)
    expected = [f"{value:f}:{labels.index(label)}:{label}" for label, value in classifier.predict(pixels).top(2)]
    assert (found["datatype"], found["shape"], found["data"]) == ("BYTES", [1, 2], expected)


def test_text_beside_the_image(client: Client, images: list[bytes], models: dict[str, Path]):
    texts = ["red circle", ""]
    data = [base64.b64encode(image).decode() for image in images[:2]]
    inputs = [tensor("image", "BYTES", [2], data), tensor("text", "BYTES", [2], texts)]
    fused = load(models["fused"], "cpu")
    reply = client.post("/v2/models/fused/infer", {"inputs": inputs})
    check(reply, [fused.predict(image, text) for image, text in zip(images, texts, strict=False)])


def test_a_text_tower(client: Client, models: dict[str, Path]):
    encoder = load_text(models["text"], "cpu")
    texts = ["red", "blue circle red"]
    reply = client.post("/v2/models/text/infer", {"inputs": [tensor("text", "BYTES", [2], texts)]})
    embedding, features = reply.json["outputs"]
    assert embedding["data"] == [value for text in texts for value in encoder.encode([text])[0].tolist()]
    assert features["shape"] == [2, encoder.spec.encoder.dim]


def test_a_regression(client: Client, images: list[bytes], models: dict[str, Path]):
    expected = load(models[REGRESSION], "cpu").predict(images[0])
    data = [base64.b64encode(images[0]).decode()]
    reply = client.post(f"/v2/models/{REGRESSION}/infer", {"inputs": [tensor("image", "BYTES", [1], data)]})
    assert [item["name"] for item in reply.json["outputs"]] == ["values", "embedding"]
    assert reply.json["outputs"][0]["data"] == expected.logits.tolist()


ONE = tensor("image", "UINT8", [1, 1, 1, 3], [1, 2, 3])
BAD = {
    "no inputs": ({}, "inputs: expected a list"),
    "an unknown input": ({"inputs": [ONE | {"name": "picture"}]}, "inputs: expected image"),
    "no name": ({"inputs": [{"datatype": "UINT8"}]}, "inputs: name"),
    "a missing text": ({"inputs": []}, "inputs: expected image, got none"),
    "another datatype": ({"inputs": [ONE | {"datatype": "FP32"}]}, "UINT8 or BYTES"),
    "another rank": ({"inputs": [ONE | {"shape": [1, 1, 3]}]}, "[n, height, width, 3]"),
    "another number of channels": ({"inputs": [ONE | {"shape": [1, 1, 3, 1]}]}, "[n, height, width, 3]"),
    "a shape of other size": ({"inputs": [ONE | {"shape": [2, 1, 1, 3]}]}, "has 6 values, got 3"),
    "a shape of zero": ({"inputs": [ONE | {"shape": [0, 1, 1, 3]}]}, "at least 1"),
    "a shape that is true": ({"inputs": [ONE | {"shape": [True, 1, 1, 3]}]}, "shape: expected a whole number"),
    "a negative number": ({"inputs": [ONE | {"data": [-1, 2, 3]}]}, "from 0 to 255"),
    "a large number": ({"inputs": [ONE | {"data": [10**30, 2, 3]}]}, "from 0 to 255"),
    "a fraction": ({"inputs": [ONE | {"data": [0.5, 2, 3]}]}, "from 0 to 255"),
    "words": ({"inputs": [ONE | {"data": ["a", "b", "c"]}]}, "from 0 to 255"),
    "rows of two sizes": (
        {"inputs": [ONE | {"data": [[[[1, 2, 3]]], [[[1, 2]]]]}]},
        "images of one tensor have one size",
    ),
    "nested otherwise": ({"inputs": [ONE | {"data": [[1], [2], [3]]}]}, "do not have the shape"),
    "no base64": ({"inputs": [tensor("image", "BYTES", [1], ["?"])]}, "expected base64"),
    "no image": ({"inputs": [tensor("image", "BYTES", [1], ["bm8gaW1hZ2UgYXQgYWxs"])]}, "not an image"),
    "too few elements": ({"inputs": [tensor("image", "BYTES", [2], ["AAAA"])]}, "has 2 elements, got 1"),
    "a text": ({"inputs": [ONE, tensor("text", "BYTES", [1], ["red"])]}, "inputs: expected image, got image, text"),
    "an unknown output": ({"inputs": [ONE], "outputs": [{"name": "boxes"}]}, "not an output"),
    "an id that is no text": ({"inputs": [ONE], "id": 3}, "id: expected a string"),
    "too many classes": (
        {"inputs": [ONE], "outputs": [{"name": "logits", "parameters": {"classification": 99}}]},
        "classification",
    ),
    "shared memory": (
        {"inputs": [ONE | {"parameters": {"shared_memory_region": "a"}}]},
        "shared memory is not offered",
    ),
    "more than follows": ({"inputs": [binary("image", "UINT8", [1, 1, 1, 3], 3)]}, "more than the 0 that follow"),
}


@pytest.mark.parametrize(("request_", "message"), BAD.values(), ids=BAD)
def test_what_is_refused(request_: object, message: str, client: Client):
    reply = client.post(INFER, request_)
    assert reply.status == 400, reply
    assert message in reply.error


BYTES = binary("image", "BYTES", [1], 7)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (b"\x09\0\0\0abc", "ends beyond the tensor"),
        (b"\x03\0\0\0abcd", "1 bytes follow"),
        (b"\x03\0", "more than the 2 that follow"),
    ],
)
def test_binary_data_that_do_not_fit(rest: bytes, message: str, client: Client):
    reply = send_binary(client, {"inputs": [BYTES]}, rest)
    assert (reply.status, message in reply.error) == (400, True), reply


@pytest.mark.parametrize("length", ["-1", "x", "99999", "9" * 40])
def test_a_header_length_that_does_not_fit(length: str, client: Client):
    reply = client.post(INFER, {"inputs": [ONE]}, **{LENGTH: length})
    assert (reply.status, "Content-Length" in reply.error) == (400, True)


def test_json_of_too_many_values_is_refused_unread(client: Client):
    reply = client.post(INFER, b"[" + b"[]," * 1_000_001)
    assert (reply.status, "send binary tensors" in reply.error) == (413, True)


def test_a_wrong_method_is_said(client: Client):
    assert client.get(INFER).status == 405
    assert client.post("/v2/health/live", {}).status == 405
