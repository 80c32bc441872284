"""What is taken in, and from whom."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serve_client import Client

from clip_serve import ServeOptions, create_app, server
from clip_serve.middleware import admission
from clip_serve.options import AddressOptions, LimitOptions
from clip_toolkit.errors import ClipToolkitError
from clip_toolkit.options import UsageError

Start = Callable[[ServeOptions], Client]


class Held:
    """A service whose runs of the network wait for leave."""

    def __init__(self, client: Client) -> None:
        [served] = client.service.models.values()
        self.leave, self.taken, self._batcher = threading.Event(), 0, served._batcher
        compute = self._batcher._compute

        def held(items: list[Any]) -> Any:
            self.taken += len(items)
            assert self.leave.wait(20)
            return compute(items)

        self._batcher._compute = held

    def wait_for(self, count: int) -> None:
        """Wait until so many images are in a run or in the queue."""
        while self.taken + self._batcher.pending != count:
            time.sleep(0.001)


def in_threads(count: int, work: Callable[[], Any]) -> tuple[list[threading.Thread], list[Any]]:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, found


def test_a_full_queue_refuses_every_further_request(start: Start, demo: Path, images: list[bytes]):
    client = start(ServeOptions((str(demo),), quiet=True, limits=LimitOptions(max_queue=3)))
    held = Held(client)
    threads, answers = in_threads(3, lambda: client.post("/v1/predict", images[0], "image/jpeg"))
    held.wait_for(3)
    refused = [client.post("/v1/predict", images[0] + bytes(200_000), "image/jpeg") for _ in range(10)]
    assert client.get("/v2/health/live").status == 200
    held.leave.set()
    for thread in threads:
        thread.join(20)
    assert {(reply.status, reply.headers["retry-after"]) for reply in refused} == {(429, "1")}
    assert [reply.status for reply in answers] == [200] * 3
    assert client.post("/v1/predict", images[0], "image/jpeg").status == 200


def test_a_client_that_leaves_frees_its_place(start: Start, demo: Path, images: list[bytes]):
    client = start(ServeOptions((str(demo),), quiet=True, limits=LimitOptions(max_queue=1)))
    held = Held(client)
    with raw(client, head(len(images[0])) + images[0]):
        held.wait_for(1)
        assert client.post("/v1/predict", images[0], "image/jpeg").status == 429
    while b'status="499"' not in client.get("/metrics").body:
        time.sleep(0.001)
    held.leave.set()
    assert client.post("/v1/predict", images[0], "image/jpeg").status == 200


def head(length: int) -> bytes:
    lines = ["POST /v1/predict HTTP/1.1", "Host: localhost", "Content-Type: image/jpeg", f"Content-Length: {length}"]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def raw(client: Client, data: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", client.port), timeout=20)
    connection.sendall(data)
    return connection


def received(connection: socket.socket, text: bytes) -> bytes:
    """What comes, until a text has come."""
    answer = b""
    while text not in answer:
        more = connection.recv(1000)
        assert more, answer
        answer += more
    return answer


@pytest.fixture(scope="module")
def impatient(start: Start, demo: Path) -> Client:
    """A service with little room and little time."""
    limits = LimitOptions(max_body=1, timeout=0.2)
    return start(ServeOptions((str(demo),), quiet=True, limits=limits))


def test_a_large_body_is_refused(impatient: Client):
    for body in (bytes(2**20 + 1), iter([bytes(2**20), b"a"])):  # with its length, and in chunks without one
        reply = impatient.ask("POST", "/v1/predict", body, content_type="image/jpeg")
        assert (reply.status, "--max-body" in reply.error) == (413, True)


def test_a_compressed_body_is_refused(impatient: Client):
    reply = impatient.post("/v1/predict", b"\x1f\x8b", "image/jpeg", content_encoding="gzip")
    assert (reply.status, "not unpacked" in reply.error) == (415, True)


def test_half_a_body_runs_out_of_time(impatient: Client):
    with raw(impatient, head(100) + b"half") as connection:
        answer = received(connection, b"not received within 0.2 seconds")
    assert answer.startswith(b"HTTP/1.1 408")


def test_an_answer_that_takes_too_long_is_given_up(start: Start, demo: Path, images: list[bytes]):
    client = start(ServeOptions((str(demo),), quiet=True, limits=LimitOptions(timeout=0.2)))
    held = Held(client)
    reply = client.post("/v1/predict", images[0], "image/jpeg")
    held.leave.set()
    assert (reply.status, "not answered within" in reply.error) == (503, True)


def test_bodies_that_wait_have_a_bound_together(impatient: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admission, "_HELD_BYTES", 1000)
    reply = impatient.post("/v1/predict", bytes(1001), "image/jpeg")
    assert (reply.status, "too many bytes" in reply.error) == (429, True)


@pytest.mark.parametrize("beginning", [b"", b"POST /v1/pre", head(5)[:-2]])
def test_a_head_that_does_not_come_is_cut_off(beginning: bytes, impatient: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.05)
    with raw(impatient, beginning) as connection:
        assert connection.recv(1000) == b""


def test_a_second_head_likewise(impatient: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.05)
    with raw(impatient, b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
        assert received(connection, b"]}").startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /v2 HT")
        assert connection.recv(1000) == b""


TOKEN = "0123456789abcdef"  # noqa: S105


@pytest.fixture(scope="module")
def guarded(start: Start, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A service that asks for a token."""
    path = tmp_path_factory.mktemp("secret") / "token"
    path.write_text(TOKEN + "\n")
    return start(ServeOptions((str(demo),), quiet=True, address=AddressOptions(token_file=path)))


@pytest.mark.parametrize("given", [{}, {"authorization": "Bearer 0123"}, {"authorization": f"Basic {TOKEN}"}])
def test_without_the_token_nothing_is_answered(given: dict[str, str], guarded: Client):
    for path in ("/v2", "/v2/models/demo", "/metrics", "/nothing"):
        reply = guarded.get(path, **given)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert guarded.post("/v1/predict", b"", **given).status == 401
    assert guarded.get("/v2/health/live", **given).status == 200


def test_with_the_token_all_is(guarded: Client):
    assert guarded.get("/v2/models/demo", authorization=f"bearer {TOKEN}", host="example.org").status == 200


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1.example.org", "", "localhost.example.org:80"])
def test_without_a_token_other_names_of_this_machine_are_refused(host: str, impatient: Client):
    assert impatient.get("/v2", host=host).status == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8000", "LOCALHOST:8000"])
def test_its_own_names_are_not(host: str, impatient: Client):
    assert impatient.get("/v2", host=host).status == 200


@pytest.mark.parametrize("content", [b"short", b"", b"with blank 0123456789", b"\xff" * 20])
def test_a_token_that_is_no_secret_is_refused(content: bytes, demo: Path, tmp_path: Path):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ClipToolkitError, match="token"):
        start_app(ServeOptions((str(demo),), address=AddressOptions(token_file=path)))


def start_app(options: ServeOptions) -> None:
    create_app(options).build_middleware_stack()


def test_other_machines_need_a_token():
    with pytest.raises(UsageError, match="--token-file"):
        AddressOptions(host="0.0.0.0")  # noqa: S104
    assert not AddressOptions(host="0.0.0.0", insecure=True).is_local  # noqa: S104
    assert AddressOptions(host="::1").is_local
