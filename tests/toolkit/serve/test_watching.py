"""Changed model files are noticed once, and not before they are whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_task_model
from serve_client import Client

from clip_serve import ServeOptions
from clip_serve.models.repository import Repository
from clip_serve.watching import watch
from clip_toolkit.spec.tasks import MULTI_LABEL, SINGLE_LABEL


class NoMoreLooksError(Exception):
    """The script is at its end."""


@pytest.mark.parametrize(
    ("looks", "reloads"),
    [
        ("aaaa", ""),
        ("abcdddd", "d"),  # grows, and then stays
        ("abab", ""),
        ("abbacc", "bc"),  # one turn after the other
        ("abbaab", "ba"),  # the way back is a change as well
    ],
)
def test_only_files_that_have_settled_are_read(looks: str, reloads: str):
    left = iter(looks)
    seen: list[str] = []

    def look() -> str:
        found = next(left, None)
        if found is None:
            raise NoMoreLooksError
        seen.append(found)
        return found

    service = SimpleNamespace(marks=look(), repository=SimpleNamespace(marks=look))
    read: list[str] = []

    def reload() -> None:
        service.marks = seen[-1]
        read.append(service.marks)

    with pytest.raises(NoMoreLooksError):
        asyncio.run(watch(service, 0, reload))  # type: ignore[arg-type]
    assert "".join(read) == reloads


def test_every_way_of_changing_a_file_shows(tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"one")
    repository = Repository(ServeOptions((str(path),)))
    seen = [repository.marks()]
    assert repository.marks() == seen[0]
    path.write_bytes(b"other")
    seen.append(repository.marks())
    (tmp_path / "new").write_bytes(b"other")
    (tmp_path / "new").replace(path)
    seen.append(repository.marks())
    path.unlink()
    seen.append(repository.marks())
    assert len(set(seen)) == 4
    assert seen[-1] == (None,)


def test_a_service_that_watches_takes_a_new_file(start: Callable[[ServeOptions], Client], tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_task_model.model(SINGLE_LABEL))
    client = start(ServeOptions((str(path),), watch=0.1, quiet=True))
    before = client.get("/v2/models/model").json["versions"]
    path.write_bytes(tiny_task_model.model(MULTI_LABEL))
    while client.get("/v2/models/model").json["versions"] == before:
        pass
    assert client.get("/metrics").body.count(b'clip_serve_reloads_total{outcome="succeeded"} 1.0') == 1
