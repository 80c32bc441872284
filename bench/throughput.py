"""Images a second from JPEG files on: ours against the transformers pipeline over PyTorch and over Optimum.

The contenders take turns, each in a process of its own: ``throughput.py RUNNER MODEL`` with the files on stdin. The
floor is decoding and resizing spread over all cores, and then the network alone.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CONTENDERS = {
    "ours, float32": ("ours", "float.onnx"),
    "its floor": ("floor", "float.onnx"),
    "ours, int8": ("ours", "int8.onnx"),
    "its floor, int8": ("floor", "int8.onnx"),
    "pipeline over PyTorch": ("pytorch", "checkpoint"),
    "pipeline over Optimum, float32": ("optimum", "optimum"),
    "pipeline over Optimum, int8": ("optimum", "optimum8"),
}
"""Runner and model of each."""

SIZES = ((640, 480), (1280, 960), (4000, 3000))
BATCH = 8


@dataclass(frozen=True)
class Rate:
    """One contender on images of one size.

    Attributes:
        size: ``width x height``.
        name: of the contender.
        rounds: images a second in each round.
    """

    size: str
    name: str
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Images a second."""
        return statistics.median(self.rounds)

    def over(self, other: Rate) -> float:
        """How many times faster than another one: median of the ratios of each round."""
        return statistics.median(a / b for a, b in zip(self.rounds, other.rounds, strict=True))


def measure_throughput(folder: Path, images: int = 200, rounds: int = 3) -> list[Rate]:
    """Every contender on every size, on the files that `quantized.quantized` has made in ``folder``."""
    rates = []
    for width, height in SIZES:
        files = pictures(folder / "jpegs", width, height, images)
        taken: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for _ in range(rounds):
            for name, (runner, model) in CONTENDERS.items():
                taken[name].append(apart(runner, folder / model, files))
        rates += [Rate(f"{width}x{height}", name, tuple(values)) for name, values in taken.items()]
    return rates


def pictures(folder: Path, width: int, height: int, count: int) -> list[Path]:
    """As many names of JPEGs of a size; a few files, because one is as good as another once it is cached."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"{width}-{number}.jpg" for number in range(4)]
    rng = np.random.default_rng(0)
    for path in files:
        if not path.exists():
            picture = np.asarray(Image.effect_mandelbrot((width, height), (-2, -1.5, 1, 1.5), 60).convert("RGB"))
            grain = rng.integers(-10, 11, picture.shape)
            Image.fromarray((picture + grain).clip(0, 255).astype(np.uint8)).save(path, quality=85)
    return [files[number % 4] for number in range(count)]


def apart(runner: str, model: Path, files: list[Path]) -> float:
    """Images a second of a contender in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, runner, str(model)]
    done = subprocess.run(command, input="\n".join(map(str, files)), capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def rate(run: Callable[[list[Path]], object], files: list[Path]) -> float:
    """Images a second after a warm-up of one batch for each core."""
    run(files[: 2 * BATCH])
    start = time.perf_counter()
    run(files)
    return len(files) / (time.perf_counter() - start)


def run_ours(model: Path, files: list[Path]) -> float:
    """Return the runtime's own stream."""
    from clip_toolkit import load

    classifier = load(model, device="cpu")
    return rate(lambda paths: list(classifier.predict_many(paths, BATCH)), files)


def run_floor(model: Path, files: list[Path]) -> float:
    """Time decoding and resizing, divided by the number of cores, and the network alone on all of them."""
    from clip_toolkit import load

    classifier = load(model, device="cpu")
    some = files[: 3 * BATCH]
    start = time.perf_counter()
    pixels = [classifier.pixels(path) for path in some]
    prepared = (time.perf_counter() - start) / len(some) / classifier.threads
    batch = np.stack(pixels[:BATCH])
    classifier.run(batch)
    start = time.perf_counter()
    for _ in range(6):
        classifier.run(batch)
    return 1 / (prepared + (time.perf_counter() - start) / 6 / BATCH)


def run_pytorch(model: Path, files: list[Path]) -> float:
    """Return the transformers pipeline over PyTorch."""
    from transformers import CLIPVisionModelWithProjection

    return _pipeline(CLIPVisionModelWithProjection.from_pretrained(model), files)


def run_optimum(model: Path, files: list[Path]) -> float:
    """Return the transformers pipeline over Optimum's own export."""
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    return _pipeline(ORTModelForFeatureExtraction.from_pretrained(model), files)


def _pipeline(model: object, files: list[Path]) -> float:
    from transformers import CLIPImageProcessor, pipeline

    processor = CLIPImageProcessor()
    extract = pipeline("image-feature-extraction", model=model, image_processor=processor, framework="pt")
    return rate(lambda paths: extract([str(path) for path in paths], batch_size=BATCH), files)


RUNNERS = {"ours": run_ours, "floor": run_floor, "pytorch": run_pytorch, "optimum": run_optimum}

if __name__ == "__main__":
    print(RUNNERS[sys.argv[1]](Path(sys.argv[2]), [Path(line) for line in sys.stdin.read().splitlines()]))
