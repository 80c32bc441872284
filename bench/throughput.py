"""Images a second from JPEG files on: ours against the transformers pipeline over PyTorch and over Optimum.

``python bench/throughput.py FOLDER`` with a folder that ``bench/run.py`` has filled (``ours.onnx``, ``checkpoint``,
``optimum``) and, where there is one, an ``int8.onnx`` of ours and an ``optimum-int8`` folder. The contenders take turns
in one process each; the share is that of the floor: decoding and resizing spread over all cores, and the network alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((640, 480), (1280, 960), (4000, 3000))
BATCH = 8


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="bench/throughput.py", description="Images a second, from files on.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200, help="of each size (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each contender (default: %(default)s)")
    parser.add_argument("--widths", type=int, nargs="+", default=[width for width, _ in SIZES])
    parser.add_argument("--worker", choices=RUNNERS, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, and print a row for each contender and size."""
    args = parse_args()
    if args.worker:
        files = [Path(line) for line in sys.stdin.read().splitlines()]
        print(json.dumps(RUNNERS[args.worker](args.model, files)))
        return
    for width, height in SIZES:
        if width in args.widths:
            files = pictures(args.folder / "jpegs", width, height, args.images)
            rates = {name: 0.0 for name, _, _ in contenders(args.folder)}
            for _ in range(args.rounds):
                for name, runner, model in contenders(args.folder):
                    rates[name] = max(rates[name], apart(runner, model, files, args.folder))
            for name, rate in rates.items():
                print(f"| {width}x{height} | {name} | {rate:.1f} |", flush=True)


def contenders(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Name, runner and model of all that can run."""
    for name, runner, model in (
        ("ours fp32", "ours", "ours.onnx"),
        ("floor of ours fp32", "floor", "ours.onnx"),
        ("ours int8", "ours", "int8.onnx"),
        ("floor of ours int8", "floor", "int8.onnx"),
        ("pipeline, PyTorch", "pytorch", "checkpoint"),
        ("pipeline, Optimum fp32", "optimum", "optimum"),
        ("pipeline, Optimum int8", "optimum", "optimum-int8"),
    ):
        if (folder / model).exists():
            yield name, runner, folder / model


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


def apart(runner: str, model: Path, files: list[Path], folder: Path) -> float:
    """Images a second of a contender in a process of its own."""
    command = [sys.executable, __file__, str(folder), "--worker", runner, "--model", str(model)]
    done = subprocess.run(command, input="\n".join(map(str, files)), capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def rate(run: Callable[[list[Path]], object], files: list[Path]) -> float:
    """Images a second after a warm-up of one batch for each core."""
    run(files[: 2 * BATCH])
    start = time.perf_counter()
    run(files)
    return len(files) / (time.perf_counter() - start)


def run_ours(model: Path, files: list[Path]) -> float:
    """The runtime's own stream."""
    from clip_toolkit import load

    classifier = load(model, device="cpu")
    return rate(lambda paths: list(classifier.predict_many(paths, BATCH)), files)


def run_floor(model: Path, files: list[Path]) -> float:
    """Decoding and resizing one after the other, over the number of cores; and the network alone, on all of them."""
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
    """The transformers pipeline over PyTorch."""
    from transformers import CLIPVisionModelWithProjection

    return _pipeline(CLIPVisionModelWithProjection.from_pretrained(model), files)


def run_optimum(model: Path, files: list[Path]) -> float:
    """The transformers pipeline over Optimum's own export."""
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    return _pipeline(ORTModelForFeatureExtraction.from_pretrained(model), files)


def _pipeline(model: object, files: list[Path]) -> float:
    from transformers import CLIPImageProcessor, pipeline

    processor = CLIPImageProcessor()
    extract = pipeline("image-feature-extraction", model=model, image_processor=processor, framework="pt")
    return rate(lambda paths: extract([str(path) for path in paths], batch_size=BATCH), files)


RUNNERS = {"ours": run_ours, "floor": run_floor, "pytorch": run_pytorch, "optimum": run_optimum}


if __name__ == "__main__":
    main()
