"""Object stores, by one on this machine that answers some of its reads with 503."""

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_scale.commands.scale import main

server = pytest.importorskip("moto.server", reason="needs moto")
s3fs = pytest.importorskip("s3fs", reason="needs the package of the store")
serving = pytest.importorskip("werkzeug.serving", reason="needs moto")

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Overloaded:
    """A store that refuses the first of each twenty reads of objects, as S3 does when it is asked too often."""

    def __init__(self, store: Application) -> None:
        self.store, self.reads, self.ranges, self.refused = store, 0, 0, 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].count("/") > 1:
            self.reads += 1
            self.ranges += "HTTP_RANGE" in environ
            if self.reads % 20 == 1:
                self.refused += 1
                start("503 Slow Down", [("Content-Type", "application/xml")])
                return [b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"]
        return self.store(environ, start)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Overloaded]:
    """The store, which the environment names; it has a bucket ``images``."""
    store = Overloaded(server.DomainDispatcherApplication(server.create_backend_app))
    with serving.make_server("127.0.0.1", 0, store, threaded=True) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{running.port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().makedirs("images", exist_ok=True)  # moto keeps it from test to test
        yield store
        s3fs.S3FileSystem.clear_instance_cache()
        running.shutdown()
        thread.join()


def records(folder: Path) -> list[dict[str, Any]]:
    """Records of the parts, called by the mere names of their images."""
    lines = [line for part in sorted(folder.glob("part-*.jsonl")) for line in part.read_text("utf-8").splitlines()]
    return [item | {"image": item["image"].rpartition("/")[2]} for item in map(json.loads, lines)]


@pytest.mark.parametrize("form", ["prefix", "tar"])
def test_images_of_a_store_that_is_asked_too_often(
    form: str, store: Overloaded, model: Path, photos: Path, inferred: list[dict[str, Any]], tmp_path: Path
):
    remote = s3fs.S3FileSystem()
    if form == "prefix":
        remote.put(str(photos), "images/photos", recursive=True)
    else:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(photos, "photos")
        remote.pipe("images/00.tar", buffer.getvalue())
    source = f"s3://images/{'00.tar' if form == 'tar' else 'photos'}"
    options = ["--workers", "1", "--format", "jsonl", "--part-size", "16", "--model", str(model), "--quiet"]
    assert main(["run", source, str(tmp_path / "out"), *options]) == 1  # for one file is no image
    found = sorted(records(tmp_path / "out"), key=lambda item: item["image"])
    for item, expected in zip(found, inferred, strict=True):
        name = Path(expected["image"]).name
        assert item | {"error": None} == expected | {"image": name, "error": None}
        assert (item["error"] is None) == (expected["error"] is None)
    assert store.refused > 0
    assert (store.ranges > 0) == (form == "tar")
