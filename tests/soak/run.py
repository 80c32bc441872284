"""``make soak``: a long load on real `clip-serve` processes; every answer is right, or a refusal with its reason.

Traffic stays on loopback and is bounded by ``--requests``. Each part prints its figures; the exit code is 1 where an
answer was wrong, lost or a server's error.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "toolkit"))
import tiny_task_model

from clip_toolkit import load
from clip_toolkit.spec.tasks import MULTI_LABEL, SINGLE_LABEL

DEMO = Path(__file__).parents[2] / "models" / "demo.onnx"
IMAGES, CLIENTS, QUEUE = 24, 16, 8
BAD = {400, 404, 413, 415}
LEFT = 0  # in place of a status: the client went before its answer
Check = Callable[[bytes], bool]


@dataclass(frozen=True)
class Request:
    """What is sent, which statuses may come back, and whether the body of a 200 is right."""

    sent: bytes
    statuses: frozenset[int]
    is_right: Check = lambda _: True
    leaves: bool = False


@dataclass
class Tally:
    """What came back."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def count(self, asked: Request, status: int, body: bytes) -> None:
        """Count an answer, and keep it where it is not what it has to be."""
        self.statuses[status] += 1
        if status not in asked.statuses or (status == 200 and not asked.is_right(body)):
            self.wrong.append(f"{asked.sent[:80]!r} -> {status} {body[:200]!r}")

    def __str__(self) -> str:
        return f"{dict(sorted(self.statuses.items()))} wrong {len(self.wrong)}"


def main() -> int:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schemathesis", help="its command, to ask all that the OpenAPI document describes")
    parser.add_argument("--requests", type=int, default=100_000, help="of the mixed load (default: %(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which servers inherit: under nohup they would never reload
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    images = list(jpegs())
    wrong = asyncio.run(mixed(images, options.requests // 2))
    wrong += asyncio.run(mixed(images, options.requests // 2, "--throughput"))
    for part in (full_queue, idle_and_slow, hostile, stopped, reloaded):
        wrong += asyncio.run(part(images))
    if options.schemathesis is not None:
        wrong += described(options.schemathesis)
    for line in wrong[:20]:
        print(f"WRONG {line}")
    return bool(wrong)


async def mixed(images: list[bytes], requests: int, *arguments: str) -> list[str]:
    """Send good and bad requests, and look at the memory of the process meanwhile."""
    kinds, tally = list(all_kinds(images)), Tally()
    with serving(str(DEMO), *arguments) as server:
        start, memory = time.perf_counter(), [server.resident]
        for _ in range(10):
            await in_turns(server.port, kinds, requests // 10, tally)
            memory.append(server.resident)
        seconds = time.perf_counter() - start
    total = tally.statuses.total()
    rate = f"{total} requests in {seconds:.0f} s, {total / seconds:.0f}/s"
    print(" ".join(("mixed", *arguments)) + f": {rate}, {tally}; resident MiB {memory}")
    return tally.wrong


def all_kinds(images: list[bytes]) -> Iterator[Request]:
    """Two thirds of what a service is asked, and what it must refuse."""
    classifier, ok = load(DEMO, "cpu"), frozenset({200})
    for number, image in enumerate(images):
        found = classifier.predict(image)
        right = names(found.label, found.probability)
        encoded = base64.b64encode(image).decode()
        yield Request(post("/v1/predict", "image/jpeg", image), ok, right)
        yield Request(post("/v1/predict", "application/json", {"image": encoded}), ok, right)
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [encoded]}
        yield Request(post("/v2/models/demo/infer", "application/json", {"inputs": [tensor]}), ok, tells(found))
        form = b'--X\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + image + b"\r\n--X--\r\n"
        yield Request(post("/v1/predict", "multipart/form-data; boundary=X", form), ok, right)
        refused = [
            post("/v1/predict", "image/jpeg", image[: len(image) // 2]),
            post("/v1/predict", "image/png", bytes(number + 1) + b"no image"),
            post("/v1/predict", "application/json", b'{"image": ' + b"[" * number),
            post("/v1/predict?model=unknown", "image/jpeg", image),
            post("/v1/predict?top_k=-1", "image/jpeg", image),
            post("/v1/nothing", "image/jpeg", image),
            post("/v1/predict", "text/plain", b"hello"),
            post("/v2/models/demo/infer", "application/json", {"inputs": [tensor | {"shape": [2]}]}),
        ]
        yield Request(refused[number % len(refused)], frozenset(BAD))
        if number % 3 == 0:
            yield Request(post("/v1/predict", "image/jpeg", image), frozenset({LEFT}), leaves=True)


def names(label: str, probability: float) -> Check:
    """Return a check of the one record of an answer, to the bit."""

    def is_right(body: bytes) -> bool:
        [record] = json.loads(body)["predictions"]
        return (record["label"], record["probability"]) == (label, probability)

    return is_right


def tells(prediction: Any) -> Check:
    """Return a check of the logits of the protocol's answer, to the bit."""

    def is_right(body: bytes) -> bool:
        [logits] = [item["data"] for item in json.loads(body)["outputs"] if item["name"] == "logits"]
        return np.array_equal(np.array(logits, np.float32), prediction.logits)

    return is_right


async def full_queue(images: list[bytes]) -> list[str]:
    """Send 200 at once where there is room for 8: whoever is not answered is refused, and told when to come back."""
    large, tally = enlarged(images[0]), Tally()
    found = load(DEMO, "cpu").predict(large)
    right = names(found.label, found.probability)
    good = Request(post("/v1/predict", "image/jpeg", large), frozenset({200, 429}), right)
    with serving(str(DEMO), "--max-queue", str(QUEUE)) as server:
        await asyncio.gather(*(once(server.port, good, tally) for _ in range(200)))
    print(f"queue of {QUEUE}, 200 at once: {tally}")
    answered_too_few = tally.statuses[200] < QUEUE or tally.statuses.total() != 200
    return [*tally.wrong, *([f"queue: {tally}"] if answered_too_few else [])]


async def idle_and_slow(images: list[bytes]) -> list[str]:
    """Hold 1,000 connections that send nothing and 50 that send a byte a second; all are cut, and others answered."""
    good, tally = Request(post("/v1/predict", "image/jpeg", images[0]), frozenset({200})), Tally()
    with serving(str(DEMO)) as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(1050)]
        drips = [asyncio.create_task(drip(writer)) for _, writer in held[:50]]
        start = time.perf_counter()
        await once(server.port, good, tally)
        meanwhile = time.perf_counter() - start
        ends = await asyncio.gather(*(cut_off(reader) for reader, _ in held))
        seconds = time.perf_counter() - start
        await asyncio.gather(*drips)
    print(f"{sum(ends)} of {len(ends)} idle or slow connections cut after {seconds:.1f} s, a request {meanwhile:.2f} s")
    return [*tally.wrong, *([] if all(ends) else ["idle: some were not cut"])]


async def drip(writer: asyncio.StreamWriter) -> None:
    """Send a head byte by byte, until nobody listens."""
    for byte in post("/v1/predict", "image/jpeg", b""):
        try:
            writer.write(bytes([byte]))
            await writer.drain()
        except ConnectionError:
            return
        await asyncio.sleep(1)


async def cut_off(reader: asyncio.StreamReader) -> bool:
    """Return whether the server closes a connection within half a minute."""
    try:
        return await asyncio.wait_for(reader.read(), 30) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def hostile(images: list[bytes]) -> list[str]:
    """Send what is meant to harm; the service stays, and answers the next good request."""
    head = post("/v1/predict", "image/jpeg", b"").replace(b"Content-Length: 0", b"%s")
    bodies = [
        post("/v1/predict", "application/json", {"image": "A" * 10 * 2**20}),
        post("/v1/predict", "application/json", b"[" * 10 * 2**20),
        post("/v2/models/demo/infer", "application/json", b'{"inputs": [' + b"1," * 2**20 + b"1]}"),
        post("/v1/predict", "image/png", bomb()),
        post("/v1/predict", "image/jpeg", bytes(17 * 2**20)),
        head % b"Content-Length: -1",
        head % b"Content-Length: 99999999999999",
        head % b"Content-Length: 3\r\nTransfer-Encoding: chunked" + b"zz\r\n",
        head % b"Transfer-Encoding: chunked" + b"FFFFFFFFFFFFFFFFF\r\n",
        head % b"Content-Encoding: gzip\r\nContent-Length: 3" + b"abc",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    ]
    tally = Tally()
    with serving(str(DEMO), "--timeout", "5") as server:
        for body in bodies:
            await once(server.port, Request(body, frozenset(BAD | {LEFT, 403, 405, 408, 505})), tally)
        await once(server.port, Request(post("/v1/predict", "image/jpeg", images[0]), frozenset({200})), tally)
    print(f"{len(bodies)} hostile requests and a good one: {tally}")
    return tally.wrong


async def stopped(images: list[bytes]) -> list[str]:
    """Send SIGTERM under load: what was taken in is answered, and the process ends with 0."""
    kinds, tally = [Request(post("/v1/predict", "image/jpeg", image), frozenset({200})) for image in images], Tally()
    with serving(str(DEMO)) as server:
        load_ = asyncio.create_task(in_turns(server.port, kinds, 50_000, tally, until_refused=True))
        await asyncio.sleep(3)
        server.process.send_signal(signal.SIGTERM)
        await load_
        code = await asyncio.to_thread(server.process.wait, 30)
    print(f"SIGTERM under load: {tally}, exit code {code}")
    return [*tally.wrong, *([f"exit code {code}"] if code else [])]


async def reloaded(images: list[bytes]) -> list[str]:
    """Swap the file and send SIGHUP under load: each answer is the old model's or the new one's."""
    with TemporaryDirectory() as folder:
        path, by = Path(folder) / "model.onnx", Counter[str]()
        contents = [tiny_task_model.model(task) for task in (SINGLE_LABEL, MULTI_LABEL)]
        expected = []
        for content in contents:
            path.write_bytes(content)
            classifier = load(path, "cpu")
            expected.append([[float(value) for value in classifier.predict(image).probabilities] for image in images])

        def check(number: int) -> Check:
            def is_right(body: bytes) -> bool:
                top = {item["label"]: item["probability"] for item in json.loads(body)["predictions"][0]["top"]}
                for name, answers in zip(("one", "other"), expected, strict=True):
                    if sorted(top.values()) == sorted(answers[number]):
                        by[name] += 1
                        return True
                return False

            return is_right

        ask = "/v1/predict?top_k=100"
        kinds = [Request(post(ask, "image/jpeg", image), frozenset({200}), check(i)) for i, image in enumerate(images)]
        tally = Tally()
        with serving(str(path)) as server:
            load_ = asyncio.create_task(in_turns(server.port, kinds, 5_000, tally))
            turn = 0
            while not load_.done():
                temporary = path.with_suffix(".new")
                temporary.write_bytes(contents[turn % 2])
                temporary.replace(path)
                server.process.send_signal(signal.SIGHUP)
                turn += 1
                said = await asyncio.to_thread(server.next_line)  # a file that changes while it is read is refused
                if "reloaded: model" not in said:
                    tally.wrong.append(said)
            await load_
    print(f"{turn} reloads under load: {tally}, by {dict(by)}")
    return [*tally.wrong, *([] if len(by) == 2 else [f"reload: answers by {dict(by)} alone"])]


def described(schemathesis: str) -> list[str]:
    """Send what the service's own OpenAPI document describes, and what it does not; no answer is a server's error."""
    with serving(str(DEMO)) as server:
        document = f"http://127.0.0.1:{server.port}/openapi.json"
        command = [schemathesis, "run", document, "--checks", "not_a_server_error", "--max-examples", "20"]
        done = subprocess.run([*command, "--seed", "1"], capture_output=True, text=True, timeout=600, check=False)
    cases = re.search(r"\d+ generated, .*", done.stdout)
    print(f"schemathesis: {cases[0] if cases else done.stdout}")
    return [f"schemathesis: {done.stdout[-2000:]}"] if done.returncode else []


# Connections.


async def in_turns(
    port: int,
    kinds: list[Request],
    count: int,
    tally: Tally,
    until_refused: bool = False,
) -> None:
    """Send so many requests by `CLIENTS` clients, each on a connection that it keeps as long as the server does."""
    numbers = iter(range(count))

    async def client() -> None:
        connection = None
        for number in numbers:
            asked = kinds[number * 7919 % len(kinds)]
            if connection is None:
                try:
                    connection = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionError:
                    if until_refused:
                        return
                    raise
            stays = await ask_on(connection, asked, tally)
            if not stays:
                connection[1].close()
                connection = None
        if connection is not None:
            connection[1].close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


async def once(port: int, asked: Request, tally: Tally) -> None:
    """Send one request on a connection of its own."""
    connection = await asyncio.open_connection("127.0.0.1", port)
    await ask_on(connection, asked, tally)
    connection[1].close()


async def ask_on(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], asked: Request, tally: Tally) -> bool:
    """Send a request, count its answer, and return whether the server keeps the connection."""
    reader, writer = connection
    if asked.leaves:
        writer.write(asked.sent[: len(asked.sent) // 2])
        tally.count(asked, LEFT, b"")
        return False
    try:
        writer.write(asked.sent)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).decode("latin-1").lower()
        length = re.search(r"content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
    except (ConnectionError, asyncio.IncompleteReadError):
        tally.count(asked, LEFT, b"")
        return False
    status = int(head.split()[1])
    tally.count(asked, status, body)
    if status == 429 and "retry-after" not in head:
        tally.wrong.append(f"429 without Retry-After: {head}")
    return "connection: close" not in head


def post(path: str, kind: str, body: object) -> bytes:
    """Make a request of a body, as JSON where it is not bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", f"Content-Length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode() + data


# Servers.


@dataclass(frozen=True)
class Server:
    """A `clip-serve` process."""

    process: subprocess.Popen[str]
    port: int

    def next_line(self) -> str:
        """Wait for what it says next."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    @property
    def resident(self) -> int:
        """Memory in MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


@contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    """Start a process on a free port, and end it."""
    command = [sys.executable, "-m", "clip_serve.commands.serve", *arguments, "--port", "0", "--quiet"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        port = next(int(found[1]) for line in lines if (found := re.search(r"http://127.0.0.1:(\d+)", line)))
        try:
            yield Server(process, port)
        finally:
            process.terminate()
            process.communicate(timeout=60)


# Images.


def jpegs() -> Iterator[bytes]:
    """Make small pictures that differ."""
    rng = np.random.default_rng(0)
    for _ in range(IMAGES):
        noise = Image.fromarray(rng.integers(0, 256, (8, 10, 3), np.uint8))
        yield encoded(noise.resize((160, 120), Image.Resampling.BICUBIC))


def enlarged(image: bytes) -> bytes:
    """Make a picture that takes a while to decode."""
    with Image.open(io.BytesIO(image)) as picture:
        return encoded(picture.resize((3000, 2000)))


def encoded(picture: Image.Image) -> bytes:
    """Write a JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def bomb() -> bytes:
    """Write a PNG of a few kilobytes and a billion pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    side = 32768
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


if __name__ == "__main__":
    sys.exit(main())
