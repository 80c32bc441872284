"""``/v1/embeddings`` and ``/v1/search``."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_task_model
import tiny_text_model
from onnx_bytes import metadata
from serve_client import Client

from clip_search import SearchIndex
from clip_serve import ServeOptions
from clip_serve.service import Service
from clip_toolkit import Classifier, load, load_text
from clip_toolkit.errors import SearchIndexError
from clip_toolkit.spec.tasks import SINGLE_LABEL


def data_url(image: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(image).decode()


def test_texts_in_openais_form(client: Client, models: dict[str, Path]):
    encoder = load_text(models["text"], "cpu")
    reply = client.post("/v1/embeddings", {"model": "text", "input": ["red", "blue circle"]}).json
    assert [item["embedding"] for item in reply["data"]] == [
        encoder.encode([text])[0].tolist() for text in ("red", "blue circle")
    ]
    assert [item["index"] for item in reply["data"]] == [0, 1]
    assert reply["usage"] == {"prompt_tokens": 3 + 4, "total_tokens": 3 + 4}
    [item] = client.post("/v1/embeddings", {"input": "red", "encoding_format": "base64"}).json["data"]
    assert base64.b64decode(item["embedding"]) == encoder.encode(["red"])[0].tobytes()


def test_images_in_every_form(client: Client, images: list[bytes], classifier: Classifier, models: dict[str, Path]):
    url = data_url(images[0])
    items = [url, {"image": url.partition(",")[2]}, {"type": "image_url", "image_url": {"url": url}}]
    expected = classifier.predict(images[0]).embedding.tolist()
    for item in client.post("/v1/embeddings", {"input": items}).json["data"]:
        assert item["embedding"] == expected
    expected = load(models["fused"], "cpu").predict(images[0], "").embedding.tolist()
    for query, given in (("", {"model": "fused", "input": url}), ("?model=fused", {"model": None, "input": url})):
        [item] = client.post(f"/v1/embeddings{query}", given).json["data"]
        assert item["embedding"] == expected


BAD = {
    "nothing": ({}, "input[0]: a text, or an image"),
    "an empty list": ({"input": []}, "expected 1 to 128"),
    "a number": ({"input": [1]}, "a text, or an image"),
    "both": ({"input": [{"text": "a", "image": "AAAA"}]}, "either text or image"),
    "neither": ({"input": [{}]}, "either text or image"),
    "a mixture": ({"input": ["a", {"image": "AAAA"}]}, "send two requests"),
    "text for an image model": ({"model": "demo", "input": "a"}, "demo reads images"),
    "an image for a text tower": ({"model": "text", "input": {"image": "AAAA"}}, "text reads texts alone"),
    "a URL": ({"input": {"image_url": {"url": "https://127.0.0.1/a.jpg"}}}, "URLs are not fetched"),
    "another width": ({"input": "a", "dimensions": 3}, "they are not cut"),
    "another encoding": ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
    "half a pair": ({"input": "\ud800"}, "not valid Unicode"),
}


@pytest.mark.parametrize(("body", "message"), BAD.values(), ids=BAD)
def test_refusals_have_openais_form(body: object, message: str, client: Client):
    reply = client.post("/v1/embeddings", body)
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")
    assert message in reply.json["error"]["message"]


@pytest.fixture(scope="module")
def folder(images: list[bytes], demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of a folder of images."""
    place = tmp_path_factory.mktemp("search")
    (place / "photos" / "deep").mkdir(parents=True)
    for number, image in enumerate(images):
        (place / "photos" / "deep" / f"{number}.jpg").write_bytes(image)
    with SearchIndex.open(place / "index", load(demo, "cpu"), create=True) as index:
        index.update(place / "photos")
    return place / "index"


def test_search_by_image(
    start: Callable[[ServeOptions], Client], folder: Path, demo: Path, images: list[bytes], classifier: Classifier
):
    client = start(ServeOptions((str(demo),), index=folder, quiet=True))
    with SearchIndex.open(folder, classifier) as index:
        expected = [(f"deep/{hit.path.name}", hit.score) for hit in index.query(images[2], 3)]
    found = client.post("/v1/search?k=3", images[2], "image/jpeg").json
    assert [(hit["path"], hit["score"]) for hit in found["hits"]] == expected
    assert {hit["state"] for hit in found["hits"]} == {"present"}
    for body, message in (({"text": "red"}, "shares a space"), ({}, "one image, or one text")):
        reply = client.post("/v1/search", body)
        assert (reply.status, message in reply.error) == (400, True)
    assert client.post("/v1/search?k=0", images[2], "image/jpeg").status == 400


def test_search_by_words(
    start: Callable[[ServeOptions], Client], images: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tiny_text_model, "TABLE", tiny_text_model.TABLE[:, :3])
    spec = tiny_task_model.spec(SINGLE_LABEL)
    encoder = replace(spec.encoder, feature="projected")
    contents = {
        "model": tiny_task_model.model(SINGLE_LABEL) + metadata(replace(spec, encoder=encoder).to_json()),
        "text": tiny_text_model.model(),
    }
    files = [tmp_path / f"{name}.onnx" for name in contents]
    for file, content in zip(files, contents.values(), strict=True):
        file.write_bytes(content)
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(images):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(image)
    with SearchIndex.open(tmp_path / "index", load(files[0], "cpu"), create=True) as index:
        index.update(tmp_path / "photos")
        expected = [(hit.path.name, hit.score) for hit in index.query_text(load_text(files[1], "cpu"), "red circle")]
    client = start(ServeOptions(tuple(map(str, files)), index=tmp_path / "index", quiet=True))
    found = client.post("/v1/search", {"text": "red circle"}).json
    assert found["model"] == "text"
    assert [(hit["path"], hit["score"]) for hit in found["hits"]] == expected


def test_without_an_index_there_is_no_search(client: Client, images: list[bytes]):
    reply = client.post("/v1/search", images[0], "image/jpeg")
    assert (reply.status, "--index" in reply.error) == (404, True)


def test_an_index_of_no_model_is_refused(folder: Path, models: dict[str, Path]):
    with pytest.raises(SearchIndexError, match="holds embeddings of"):
        Service(ServeOptions((str(models["fused"]),), index=folder))
    with pytest.raises(SearchIndexError, match="none of the models"):
        Service(ServeOptions((str(models["text"]),), index=folder))
