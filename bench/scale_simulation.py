"""How long a run of ``clip-scale`` takes with many workers, by a discrete simulation of it.

``scale_simulation.py stages MODEL FOLDER`` measures what a part costs here, and ``check MODEL FOLDER [WORKERS ...]``
holds the simulation with that cost against runs of a Ray cluster on this machine. Without arguments it simulates 10^9
images with 100 to 10,000 workers and prints a table. Each worker fetches a part and classifies it; all share an object
store, and one process that writes the part files one after the other, as the product does.
"""

from __future__ import annotations

import heapq
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from scale_rates import IMAGES, PART, apart
from throughput import pictures

from clip_scale import BatchClassifier
from clip_scale.part_worker import PartWorker
from clip_scale.sink import Sink
from clip_scale.sources.parts import PathPart
from clip_toolkit import load
from clip_toolkit.stream.inputs import Input


@dataclass(frozen=True)
class Plan:
    """A run; times in seconds.

    Attributes:
        workers: of one core each.
        images: all of them.
        part: images of a part.
        image: time of a core for one: decode, resize, network, its share of the record. Default: ViT-B/32 in int8 on
            640x480 JPEGs, 124.1 images a second on two cores (docs/benchmarks.md).
        fetch: time to fetch one image while nobody else asks, with as many at once as a worker has under way.
        rate: images that the store gives a second, all workers together.
        put: time of the writing process for a part.
        start: time until a worker has its first part.
        spread: of the workers' speeds, standard deviation of their logarithms.
        lost: interruptions of a worker in an hour.
    """

    workers: int = 2
    images: int = 10**9
    part: int = 512
    image: float = 0.0161
    fetch: float = 0.002
    rate: float = 5500.0
    put: float = 0.005
    start: float = 60.0
    spread: float = 0.1
    lost: float = 0.02


@dataclass(frozen=True)
class Outcome:
    """What became of a plan.

    Attributes:
        seconds: until the last part was written.
        worked: seconds that workers were there, all together.
        store: share of the time that the store was at its limit.
        writer: share of the time that the writing process was busy.
        wasted: share of the parts that were begun and lost.
    """

    seconds: float
    worked: float
    store: float
    writer: float
    wasted: float


SOURCES = {"objects": 5500.0, "tar files": 440_000.0}
"""Images a second: of S3 one prefix gives 5,500 answers a second, and one of 8 MiB of a tar file has 80 of 100 KB."""


def simulate(plan: Plan, seed: int = 0) -> Outcome:
    """Follow each part from its fetch to its file."""
    rng = np.random.default_rng(seed)
    slowness = np.exp(rng.normal(0, plan.spread, plan.workers))
    ready = [(plan.start * float(rng.uniform(0.5, 1.5)), worker) for worker in range(plan.workers)]
    heapq.heapify(ready)
    todo, begun = -(-plan.images // plan.part), 0
    parts, store, writer, last = todo, 0.0, 0.0, 0.0
    while todo:
        now, worker = heapq.heappop(ready)
        begun += 1
        store = max(store, now) + plan.part / plan.rate
        done = max(now + plan.part * plan.fetch, store) + plan.part * plan.image * slowness[worker]
        interrupted = now + rng.exponential(3600 / plan.lost) if plan.lost else np.inf
        if interrupted < done:
            heapq.heappush(ready, (interrupted + plan.start, worker))
            continue
        todo -= 1
        writer = max(writer, done) + plan.put
        last = max(last, writer)
        heapq.heappush(ready, (done, worker))
    busy = begun * plan.part / plan.rate
    return Outcome(last, last * plan.workers, busy / last, parts * plan.put / last, 1 - parts / begun)


def stages(model: Path, folder: Path) -> Iterator[tuple[str, float]]:
    """Yield what the stages cost on one core, in seconds: of an image, and of a part's file in the sink."""
    images = pictures(folder, 640, 480, 64)
    classifier = load(model, "cpu", 1)
    yield "read, decode, resize", _seconds(lambda: [classifier.pixels(path) for path in images]) / len(images)
    batch = np.stack([classifier.pixels(path) for path in images[:8]])
    yield "network", _seconds(lambda: [classifier.run(batch) for _ in range(8)]) / 64
    worker, part = _worker(model, folder)
    yield "whole part, an image", _seconds(lambda: worker((0, part))) / len(images)
    done = worker((0, PathPart(part.items * 8)))
    with tempfile.TemporaryDirectory() as there, Sink(Path(there) / "out", "parquet", {}, resume=False) as sink:
        tasks = [number for number, _ in sink.remaining([part] * 50)]
        yield (
            "file and ledger of a part of 512",
            _seconds(lambda: [sink.put(replace(done, number=n)) for n in tasks]) / 50,
        )


def _worker(model: Path, folder: Path) -> tuple[PartWorker, PathPart]:
    """Return a worker that has opened the model, and a part of 64 images."""
    part = PathPart(tuple(Input(str(path)) for path in pictures(folder, 640, 480, 64)))
    worker = PartWorker(BatchClassifier(model, threads=1, probabilities=True), "parquet")
    worker((0, PathPart(part.items[:8])))
    return worker, part


def check(model: Path, folder: Path, counts: Sequence[int], rounds: int = 3) -> Iterator[str]:
    """Yield a table in Markdown: rates of a cluster on this machine, and those that the cost of an image foretells."""
    yield "| workers | images/s by Ray | simulated | simulated / measured, each round |"
    yield "| --- | --- | --- | --- |"
    worker, part = _worker(model, folder)
    for workers in counts:
        found = []
        for _ in range(rounds):
            before = _seconds(lambda: worker((0, part)))
            measured = apart("ray", workers, model, folder)[0]
            after = _seconds(lambda: worker((0, part)))  # since the machine may not be as fast any more
            image, images = (before + after) / 2 / len(part.items), IMAGES - workers * PART  # as `scale_rates` counts
            plan = Plan(workers, images, PART, image, fetch=0, rate=np.inf, put=0, start=0, spread=0, lost=0)
            found.append((measured, images / simulate(plan).seconds))
        real, simulated = np.median(found, axis=0)
        ratios = ", ".join(f"{b / a:.2f}" for a, b in found)
        yield f"| {workers} | {real:.1f} | {simulated:.1f} | {ratios} |"


def _seconds(work: object) -> float:
    start = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - start


def table(plan: Plan) -> Iterator[str]:
    """Yield a table in Markdown of plans of more and more workers, with parts of two sizes."""
    yield "| source | workers | images a part | hours | vCPU-hours | efficiency | store busy | writer busy | lost |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    ideal = plan.images * plan.image / 3600
    for (source, rate), workers in product(SOURCES.items(), (100, 1000, 3000, 10_000)):
        for part in (512, 4096):
            found = simulate(replace(plan, workers=workers, part=part, rate=rate))
            hours = found.worked / 3600
            shares = " | ".join(f"{share:.1%}" for share in (ideal / hours, found.store, found.writer, found.wasted))
            times = f"{found.seconds / 3600:.2f} | {hours:,.0f}"
            yield f"| {source} | {workers:,} | {part:,} | {times} | {shares} |"


if __name__ == "__main__":
    if sys.argv[1:2] == ["stages"]:
        for name, seconds in stages(Path(sys.argv[2]), Path(sys.argv[3])):
            print(f"{name}: {seconds * 1000:.2f} ms")
    elif sys.argv[1:2] == ["check"]:
        for line in check(Path(sys.argv[2]), Path(sys.argv[3]), [int(number) for number in sys.argv[4:]] or (1, 2)):
            print(line, flush=True)
    else:
        print("\n".join(table(Plan())))
