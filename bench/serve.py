"""Throughput and latency of the service on loopback; writes a section of docs/benchmarks.md.

Beside it the same model behind a plain FastAPI endpoint and behind LitServe, and the runtime alone. The client runs on
the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image
from sections import replaced_section

from clip_toolkit import load
from clip_toolkit.runtime.processor import usable_cores

ROOT = Path(__file__).parents[1]
CONCURRENCY = (1, 4, 16, 64)
PACED = 16  # clients at half load
WIDTH, HEIGHT, IMAGES = 640, 480, 32
THROUGHPUT = "clip-serve --throughput"
TEXT = """\
{model}, JPEGs of {width}x{height}, {cores} cores that the client shares, {seconds:g} seconds a figure. *runtime* is
`predict_many` with `throughput` on the same bytes, batch 8, without HTTP: {bare:.1f} images a second. *plain* is a
FastAPI endpoint around `predict`; *LitServe* makes batches of up to 8 within 5 ms. *half* are 16 clients that together
send half as many images a second as the runtime does. Latencies in milliseconds. `bench/serve.py` measures it.
"""


def main() -> None:
    """Measure, and write."""
    args = parse_args()
    images = list(jpegs())
    bare = runtime_rate(args.model, images, args.seconds)
    raws, ours = [*map(raw, images)], [sys.executable, "-m", "clip_serve.commands.serve", args.model, "--quiet"]
    requests = dict.fromkeys(("clip-serve", THROUGHPUT, "plain"), raws) | {"LitServe": [*map(encoded, images)]}
    servers = {
        "clip-serve": [*ours, "--port"],
        THROUGHPUT: [*ours, "--throughput", "--port"],
        "plain": [sys.executable, str(Path(__file__).parent / "serve_plain.py"), args.model],
        "LitServe": [sys.executable, str(Path(__file__).parent / "serve_litserve.py"), args.model],
    }
    lines = [
        "| clients | server | images/s | of the runtime | p50 | p95 | p99 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    loads = {str(clients): (clients, 0.0) for clients in CONCURRENCY} | {"half": (PACED, 2 * PACED / bare)}
    for load_name, (clients, pause) in loads.items():  # one after the other, so that a busy minute meets both
        for name, command in servers.items():
            with running(command) as port:
                seconds = asyncio.run(load_test(port, requests[name], clients, args.seconds, pause))
            rate = len(seconds) / args.seconds
            marks = " | ".join(f"{1000 * mark:.0f}" for mark in np.percentile(seconds, [50, 95, 99]))
            lines.append(f"| {load_name} | {name} | {rate:.1f} | {rate / bare:.2f} | {marks} |")
            print(lines[-1], flush=True)
    facts = {"model": Path(args.model).stem, "width": WIDTH, "height": HEIGHT, "cores": usable_cores()}
    text = TEXT.format(**facts, seconds=args.seconds, bare=bare)
    if args.write:
        page = ROOT / "docs" / "benchmarks.md"
        page.write_text(replaced_section(page.read_text("utf-8"), "The service", [text, *lines]), "utf-8")
    else:
        print(text)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    return parser.parse_args()


def jpegs() -> Iterator[bytes]:
    """Make images of smooth noise, which compress as photographs do."""
    rng = np.random.default_rng(0)
    for _ in range(IMAGES):
        noise = Image.fromarray(rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8))
        buffer = io.BytesIO()
        noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        yield buffer.getvalue()


def runtime_rate(model: str, images: list[bytes], seconds: float) -> float:
    """Return the images a second of the runtime alone."""
    classifier = load(model, "cpu", throughput=True)
    list(classifier.predict_many(images))  # warm
    start = time.perf_counter()
    done = sum(1 for _ in classifier.predict_many(endless(images, seconds)))
    return done / (time.perf_counter() - start)


def endless(images: list[bytes], seconds: float) -> Iterator[bytes]:
    """Give images until the time is over."""
    end = time.perf_counter() + seconds
    for image in cycle(images):
        if time.perf_counter() > end:
            return
        yield image


@contextmanager
def running(command: list[str]) -> Iterator[int]:
    """Run a server on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([*command, str(port)], start_new_session=True) as process:
        try:
            while process.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield port
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # LitServe's workers outlive anything less


async def load_test(port: int, requests: list[bytes], clients: int, seconds: float, pause: float) -> list[float]:
    """Keep so many requests under way, and return the seconds of each that ended in time.

    Args:
        port: of the server.
        requests: sent in turns.
        clients: number of connections.
        seconds: of the test.
        pause: seconds from one request of a client to its next, if the answer has come; clients begin one by one in it.
    """
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(clients)]
    await asyncio.gather(*(ask(*connection, requests[0]) for connection in connections))  # warm
    end, found = time.perf_counter() + seconds, list[float]()

    async def client(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        due = time.perf_counter() + pause * number / clients
        while (start := max(due, time.perf_counter())) < end:
            await asyncio.sleep(start - time.perf_counter())
            await ask(reader, writer, requests[number % IMAGES])
            number += clients
            due += pause
            if time.perf_counter() < end:
                found.append(time.perf_counter() - start)
        writer.close()

    await asyncio.gather(*(client(number, *connection) for number, connection in enumerate(connections)))
    return found


def raw(image: bytes) -> bytes:
    """Make a request of nothing but the image."""
    return request("image/jpeg", image)


def encoded(image: bytes) -> bytes:
    """Make a request of the image in JSON."""
    return request("application/json", json.dumps({"image": base64.b64encode(image).decode()}).encode())


def request(kind: str, body: bytes) -> bytes:
    """Make a request of a body and its content type."""
    fields = ["Host: localhost", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join(["POST /v1/predict HTTP/1.1", *fields, "", ""]).encode() + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> None:
    """Send one request and read the answer."""
    writer.write(sent)
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    length = next(line for line in lines if line.startswith(b"content-length"))
    await reader.readexactly(int(length.split(b":")[1]))
    if b" 200 " not in lines[0]:
        raise RuntimeError(lines[0].decode())


if __name__ == "__main__":
    main()
