"""Sources in an object store, here one in memory: the same images and records as from files."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_fused_model import png

from clip_scale import BatchClassifier, LocalEngine, Source, SourceError, run
from clip_toolkit import ImageError
from clip_toolkit.spec.tasks import SINGLE_LABEL
from clip_toolkit.stream.inputs import Input

fsspec = pytest.importorskip("fsspec", reason="needs the remote extra")

RED, BLUE = png((200, 30, 40)), png((10, 90, 250))


@pytest.fixture
def store() -> Iterator[Any]:
    """An empty store at ``memory://``."""
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()


def inputs(*names: str) -> list[Input]:
    return [item for part in Source(names).parts() for item in part.inputs()]


def test_a_prefix_a_pattern_and_a_name(store: Any):
    for name in ("b.png", "a/c.JPG", "a/notes.txt", ".hidden/d.png"):
        store.pipe(f"/photos/{name}", RED)
    assert [item.name for item in inputs("memory://photos")] == ["memory:///photos/a/c.JPG", "memory:///photos/b.png"]
    assert [item.name for item in inputs("memory://photos/*.png")] == ["memory:///photos/b.png"]
    assert [item.image.read() for item in inputs("memory://photos/a/notes.txt")] == [RED]
    for missing in ("memory://photos/none.png", "memory://photos/*.gif", "memory://none"):
        with pytest.raises(SourceError, match="there is no such file, and there are no images below it"):
            inputs(missing)


def test_records_are_those_of_files(store: Any, models: dict[str, Path], photos: Path, tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")
    store.put(str(photos), "/bucket/photos", recursive=True)
    classify = BatchClassifier(models[SINGLE_LABEL])
    for name, source in (("here", str(photos)), ("there", "memory://bucket/photos")):
        run(Source((source,), part_size=8), tmp_path / name, classify, LocalEngine(1))
    here, there = (parquet.read_table(tmp_path / name).to_pylist() for name in ("here", "there"))
    assert len(here) == 21
    for row, other in zip(here, there, strict=True):
        assert other["image"] == f"memory:///bucket/photos/{Path(row['image']).name}"
        if row["error"] is not None:
            row["error"] = row["error"].replace(row["image"], other["image"])
        assert row | {"image": other["image"]} == other


def test_shards_and_manifests(store: Any):
    arrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow import parquet

    with store.open("/bucket/a.tar", "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in (("1.png", RED), ("2.png", BLUE)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    found = inputs("memory://bucket/*.tar")
    assert [(item.name, item.image.read()) for item in found] == [
        ("memory:///bucket/a.tar/1.png", RED),
        ("memory:///bucket/a.tar/2.png", BLUE),
    ]
    store.pipe("/bucket/a.tar", store.cat("/bucket/a.tar")[:700])
    assert "is damaged behind 1 images" in str(inputs("memory://bucket/a.tar")[-1].image)
    store.pipe("/bucket/photos/1.png", BLUE)
    for column, values, expected in (("bytes", [RED], RED), ("path", ["photos/1.png"], BLUE)):
        with store.open("/bucket/list.parquet", "wb") as file:
            parquet.write_table(arrow.table({column: values}), file)
        assert [item.image.read() for item in inputs("memory://bucket/list.parquet")] == [expected]
    with store.open("/bucket/list.parquet", "wb") as file:
        parquet.write_table(arrow.table({"path": [None, "photos/1.png"]}), file)
    missing, found = (item.image for item in inputs("memory://bucket/list.parquet"))
    assert (str(missing), found.read()) == ("the row has no path", BLUE)
    for outside in ("/etc/passwd", "../other/1.png", "http://127.0.0.1/1.png"):
        with store.open("/bucket/list.parquet", "wb") as file:
            parquet.write_table(arrow.table({"path": [outside]}), file)
        with pytest.raises(SourceError, match="expected paths below its own folder"):
            inputs("memory://bucket/list.parquet")
    store.pipe("/bucket/list.csv", b"path\n1.png\n")
    with pytest.raises(SourceError, match="such a manifest is read from this machine alone"):
        inputs("memory://bucket/list.csv")


def test_urls_in_a_manifest_of_this_machine_are_not_fetched(store: Any, models: dict[str, Path], tmp_path: Path):
    store.pipe("/bucket/1.png", RED)
    (tmp_path / "list.csv").write_text("path\nmemory://bucket/1.png\n", encoding="utf-8")
    (item,) = inputs(str(tmp_path / "list.csv"))
    (row,) = BatchClassifier(models[SINGLE_LABEL]).records([item])
    assert row["error"] == "memory://bucket/1.png: URLs are not fetched. Download the image and name the file."


def test_what_is_missing_is_an_error_and_a_store_that_fails_ends_the_run(store: Any, monkeypatch: pytest.MonkeyPatch):
    for name in ("a", "b", "c"):
        store.pipe(f"/photos/{name}.png", RED)
    (part,) = Source(("memory://photos",)).parts()
    read = type(store).cat_file
    error: Exception = PermissionError("Access Denied")

    def cat_file(self: Any, path: str, **options: Any) -> Any:
        if path.endswith("b.png"):
            raise error
        return read(self, path, **options)

    monkeypatch.setattr(type(store), "cat_file", cat_file)
    store.rm("/photos/c.png")
    kept, denied, gone = (item.image for item in part.inputs())
    assert kept.read() == RED
    assert str(denied) == "memory:///photos/b.png: cannot be read (Access Denied)"
    assert isinstance(gone, ImageError)
    error = ConnectionError("no route to host")
    with pytest.raises(SourceError, match=r"b\.png: cannot be read \(no route to host\)"):
        list(part.inputs())


def test_a_protocol_that_nobody_knows():
    with pytest.raises(SourceError, match=r"unknown://photos: cannot be read \(Protocol not known"):
        inputs("unknown://photos")
