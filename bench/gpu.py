"""The files on a GPU, in one go of under ten minutes: `bench/gpu.py`; to try it, `bench/gpu.py --device cpu --tiny`.

Trains a head on drawn pictures with the encoder on the GPU, exports it in float32, fp16 and int8, replays the golden
vectors of each on the GPU, compares decisions with PyTorch's in float32, and measures images a second against
torch.compile in fp16 and, where it loads, TensorRT through ONNX Runtime. What cannot run here is named, with the
reason.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clip_export.encoders.image import Encoder
from clip_export.heads.files import load_head
from clip_toolkit import load, selftest
from clip_toolkit.images.preprocess import normalise
from encoders import SUBJECTS, save_checkpoint

ROOT = Path(__file__).parents[1]
CHECKED = 64
"""Pictures whose decisions are compared."""

FILES = {
    "ours, float32": (),
    "ours, fp16": ("--quantize", "fp16"),
    "ours, int8": ("--quantize", "int8", "--ops", "standard", "--search-minutes", "0.3"),
    "ours, standard operators": ("--ops", "standard"),
}
"""What is exported, and how; the last one is TensorRT's."""

Pixels = NDArray[np.uint8]
Run = Callable[[Pixels], NDArray[np.float32]]


def command(name: str, *arguments: object) -> str:
    """Run a command of ours in a process of its own, and return its last line, or the reason of its failure."""
    module = [sys.executable, "-W", "ignore", "-m", f"clip_export.commands.{name}", *map(str, arguments)]
    done = subprocess.run(module, capture_output=True, text=True, check=False)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["no output"]
    if done.returncode:
        raise RuntimeError(lines[-1])
    return lines[-1]


def trained(checkpoint: Path, folder: Path, device: str) -> Path:
    """Train a head on drawn pictures, and tell how long that takes."""
    draw = [sys.executable, ROOT / "models" / "draw.py", folder / "photos", "--per-class", "20", "--size", "128"]
    subprocess.run(draw, check=True, capture_output=True)
    for name, more in (("head", ["--no-cache"]), ("tuned", ["--unfreeze", "1", "--epochs", "3", "--no-cache"])):
        options = ["--encoder", checkpoint, "--device", device, "--backend", "torch", "--out", folder / f"{name}.pt"]
        start = time.perf_counter()
        tried(f"clip-train {' '.join(more)}", lambda: command("train", folder / "photos", *options, *more))  # noqa: B023
        print(f"  {time.perf_counter() - start:.1f} s, imports and features of 200 pictures included")
    return folder / "head.pt"


def tried(name: str, make: Callable[[], object]) -> object | None:
    """Return what ``make`` does, or None; tell either way."""
    try:
        found = make()
    except Exception as error:  # whatever keeps a contender from running here is the finding
        print(f"left out: {name}: {str(error).strip().splitlines()[0] if str(error) else type(error).__name__}")
        return None
    print(f"{name}: {found if isinstance(found, str) else 'ready'}")
    return found


def ours(path: Path, device: str) -> Run:
    """Open a file of ours, once its selftest passes."""
    classifier = load(path, device=device)
    failed = [f"{item.output} {item.drift:.1e}" for item in selftest(classifier) if not item.passed]
    if failed:
        raise RuntimeError(f"the selftest fails: {', '.join(failed)}")
    return lambda pixels: classifier.run(pixels).probabilities


def pytorch(encoder: Encoder, head: torch.nn.Module, device: str, half: bool) -> Run:
    """Return encoder and head of PyTorch, from pixels on: in float32 as they are, in half precision compiled."""
    dtype = torch.float32 if not half else torch.float16 if device != "cpu" else torch.bfloat16
    for module in (encoder.tower, encoder.projection, head):
        if module is not None:
            module.to(device, dtype).eval()

    def answer(values: torch.Tensor) -> torch.Tensor:
        return head(encoder.features(values)).float().softmax(1)

    compiled = torch.compile(answer) if half else answer

    def run(pixels: Pixels) -> NDArray[np.float32]:
        values = torch.from_numpy(normalise(pixels, encoder.preprocessing)).to(device, dtype)
        with torch.inference_mode():
            return compiled(values).cpu().numpy()

    run(np.zeros((2, *(encoder.preprocessing.size,) * 2, 3), np.uint8))
    return run


def rates(runs: dict[str, Run], size: int, batches: list[int], seconds: float) -> None:
    """Print images a second of each contender at each batch size; they take turns."""
    print("| images a second | " + " | ".join(f"batch {batch}" for batch in batches) + " |")
    print("| --- |" + " --- |" * len(batches))
    table: dict[str, list[str]] = {name: [] for name in runs}
    for batch in batches:
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, size, size, 3), np.uint8)
        taken: dict[str, list[float]] = {name: [] for name in runs}
        end = time.perf_counter() + seconds * (len(runs) + 1)
        for round_ in range(30):
            for name, run in runs.items():
                start = time.perf_counter()
                run(pixels)
                taken[name] += [time.perf_counter() - start] if round_ else []  # the first one warms up
            if round_ >= 3 and time.perf_counter() > end:
                break
        for name, each in taken.items():
            table[name].append(f"{batch / statistics.median(each):.0f}")
    for name, cells in table.items():
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="of PyTorch and ONNX Runtime (default: cuda)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256], metavar="N")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each contender at each batch size (default: 4)")
    parser.add_argument("--tiny", action="store_true", help="tiny-clip in the place of a ViT-B/32")
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = ROOT / "models" / "tiny-clip" if args.tiny else save_checkpoint(SUBJECTS[0], folder / "checkpoint")
        head = trained(checkpoint, folder, args.device)
        runs: dict[str, Run] = {}
        for title, options in FILES.items():
            path = folder / f"{title}.onnx"
            export = [
                "--head",
                head,
                "-o",
                path,
                *options,
                *(["--min-agreement", "0"] if "--quantize" in options else []),
            ]
            if tried(f"export, {title}", lambda: command("export", *export)) is None:  # noqa: B023
                continue
            devices = ["tensorrt", args.device] if "standard" in title else [args.device]
            for device in devices:
                run = tried(f"{title}, {device}", lambda: ours(path, device))  # noqa: B023
                runs |= {} if run is None else {f"{title}, {device}": run}
        half = "fp16" if args.device != "cpu" else "bfloat16"
        for title, is_half in (("PyTorch, float32", False), (f"torch.compile, {half}", True)):
            encoder, module = Encoder.from_pretrained(str(checkpoint)), load_head(head).module
            run = tried(title, lambda: pytorch(encoder, module, args.device, is_half))  # noqa: B023
            runs |= {} if run is None else {title: run}
        size = encoder.preprocessing.size
        images = np.random.default_rng(0).integers(0, 256, (CHECKED, size, size, 3), np.uint8)
        answers = {title: run(images) for title, run in runs.items()}
        for title, found in answers.items():
            expected = answers["PyTorch, float32"]
            same = int((found.argmax(1) == expected.argmax(1)).sum())
            moved = np.abs(found - expected).max()
            print(f"parity of {title}: {same} of {CHECKED} decisions, probabilities within {moved:.1e}")
        rates(runs, size, args.batches, args.seconds)
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
