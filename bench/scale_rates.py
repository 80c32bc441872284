"""Images a second of ``clip-scale`` by engine and workers, beside ``clip-infer`` and the recipe that people write.

``scale_rates.py MODEL CHECKPOINT FOLDER`` prints a table; the contenders take turns, each in a process of its own:
``scale_rates.py CONTENDER WORKERS MODEL FOLDER``. A rate counts from the first parts on, so that nobody is charged for
starting processes and opening models, and by when a worker was done with images: Ray hands them on later.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from throughput import pictures

from clip_scale import BatchClassifier
from clip_scale.part_worker import Done, PartWorker, Task
from clip_scale.sources.parts import path_parts
from clip_toolkit import load
from clip_toolkit.stream.inputs import Input

BATCH, PART, SIZE = 8, 16, (640, 480)
IMAGES = 128


class Finished(NamedTuple):
    """Images that were finished together, when, in seconds, and by which process."""

    moment: float
    images: int
    process: int = 0


class Stamping(PartWorker):
    """A worker whose part files say when they were finished, and by which process."""

    def __call__(self, task: Task) -> Done:
        """Classify a part."""
        done = super().__call__(task)
        return replace(done, content=f"{time.time()!r} {os.getpid()}".encode())


def classified(workers: int, model: Path, images: list[Path]) -> Iterator[Finished]:
    """Yield the images as ``clip-infer`` finishes them."""
    for _ in load(model, "cpu", workers).predict_many(images, BATCH):
        yield Finished(time.time(), 1)


def by_engine(engine: Any, model: Path, images: list[Path]) -> Iterator[Finished]:
    """Yield parts as the workers of an engine finish them."""
    worker = Stamping(BatchClassifier(model, threads=1, probabilities=True), "parquet")
    for done in engine(worker, enumerate(path_parts([Input(str(path)) for path in images], PART))):
        moment, process = done.content.split()
        yield Finished(float(moment), done.summary.images, int(process))


def local(workers: int, model: Path, images: list[Path]) -> Iterator[Finished]:
    """Run processes of this machine."""
    from clip_scale import LocalEngine

    return by_engine(LocalEngine(workers), model, images)


def ray(workers: int, model: Path, images: list[Path]) -> Iterator[Finished]:
    """Run actors of a cluster on this machine."""
    from clip_scale import RayEngine

    return by_engine(RayEngine(workers), model, images)


def plain(workers: int, checkpoint: Path, images: list[Path]) -> Iterator[Finished]:
    """Decode by Ray, and classify by PyTorch, as the examples of both do; reading takes a CPU beside the actors."""
    import ray
    import torch
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    ray.init(num_cpus=workers + 1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False

    class Model:
        def __init__(self) -> None:
            torch.set_num_threads(1)
            self.processor = CLIPImageProcessor()
            self.model = CLIPVisionModelWithProjection.from_pretrained(checkpoint).eval()

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            pixels = self.processor(images=list(batch["image"]), return_tensors="pt")
            with torch.inference_mode():
                found = self.model(**pixels).image_embeds.numpy()
            return {"embedding": found, "moment": np.full(len(found), time.time())}

    found = ray.data.read_images([str(path) for path in images], mode="RGB").map_batches(
        Model, batch_size=BATCH, compute=ray.data.ActorPoolStrategy(size=workers), num_cpus=1
    )
    return (Finished(moment, 1) for batch in found.iter_batches(batch_size=PART) for moment in batch["moment"])


CONTENDERS = {"clip-infer": classified, "local": local, "ray": ray, "plain": plain}


def rate(finished: Iterable[Finished], workers: int) -> float:
    """Images a second, from where each worker has finished a part: some may have begun late."""
    moments, counts, processes = map(np.array, zip(*sorted(finished), strict=True))
    seen, started = np.cumsum(counts), np.unique(processes, return_index=True)[1].max()
    first = max(int(np.searchsorted(seen, workers * PART)), started)
    return float((seen[-1] - seen[first]) / (moments[-1] - moments[first]))


def run(contender: str, workers: int, model: Path, folder: Path) -> tuple[float, float]:
    """Return images a second, and the most MiB in Ray's object store."""
    most, over = [0.0], threading.Event()
    if contender in ("ray", "plain"):
        threading.Thread(target=_watch, args=(most, over), daemon=True).start()
    found = rate(CONTENDERS[contender](workers, model, pictures(folder, *SIZE, IMAGES)), workers)
    over.set()
    return found, most[0]


def _watch(most: list[float], over: threading.Event) -> None:
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    while not over.wait(0.2):
        if ray.is_initialized():
            address = ray.get_runtime_context().gcs_address
            stats = get_memory_info_reply(get_state_from_address(address)).store_stats
            most[0] = max(most[0], stats.object_store_bytes_used / 2**20)


def apart(contender: str, workers: int, model: Path, folder: Path) -> tuple[float, float]:
    """Return what `run` does, of a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, contender, str(workers), str(model), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found, most = map(float, done.stdout.split()[-2:])
    return found, most


def table(model: Path, checkpoint: Path, folder: Path, rounds: int) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    turns = [(name, workers) for workers in (1, 2) for name in CONTENDERS if (name, workers) != ("plain", 2)]
    found: dict[tuple[str, int], list[tuple[float, float]]] = {turn: [] for turn in turns}
    for _ in range(rounds):
        for name, workers in turns:
            found[name, workers].append(apart(name, workers, checkpoint if name == "plain" else model, folder))
    yield "| | workers | images/s | of clip-infer's with as many threads | object store, MiB |"
    yield "| --- | --- | --- | --- | --- |"
    for (name, workers), measured in found.items():
        rates, most = zip(*measured, strict=True)
        ratios = [mine / its for mine, (its, _) in zip(rates, found["clip-infer", workers], strict=True)]
        store = f"{max(most):.1f}" if name in ("ray", "plain") else ""
        yield f"| {name} | {workers} | {statistics.median(rates):.1f} | {statistics.median(ratios):.2f} | {store} |"


def main() -> None:
    """Measure one contender, or all."""
    warnings.simplefilter("ignore")
    if sys.argv[1] in CONTENDERS:
        print(*run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])))
        return
    model, checkpoint, folder = map(Path, sys.argv[1:4])
    print("\n".join(table(model, checkpoint, folder, rounds=1)))


if __name__ == "__main__":
    main()
