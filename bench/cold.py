"""One picture in a fresh process: what a user waits for who calls a command once.

Run as a program of its own, ``cold.py FOLDER``: the kernel counts a parent's memory as its child's peak, so that the
parent has to be small.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

_ROUNDS = 5

_PYTORCH = """
import sys, torch, transformers
from PIL import Image
encoder = transformers.CLIPVisionModelWithProjection.from_pretrained(sys.argv[1]).eval()
processor = transformers.CLIPImageProcessor.from_pretrained(sys.argv[1])
head = torch.nn.Sequential(torch.nn.Linear(768, 256), torch.nn.ReLU(), torch.nn.Linear(256, 2))
inputs = processor(images=Image.open(sys.argv[2]), return_tensors="pt")
with torch.inference_mode():
    pooled = encoder.vision_model(**inputs).pooler_output
    print(torch.softmax(head(pooled), dim=-1))
"""


@dataclass(frozen=True)
class Cold:
    """A whole process.

    Attributes:
        name: what ran.
        seconds: median wall time.
        peak: largest resident memory in bytes.
    """

    name: str
    seconds: float
    peak: int


def measure_cold(folder: Path) -> list[Cold]:
    """PyTorch and transformers against ``clip-infer``, in turns, on a photo-sized JPEG and the files of `quantized`."""
    image = folder / "photo.jpg"
    Image.effect_mandelbrot((640, 480), (-2, -1.5, 1, 1.5), 60).convert("RGB").save(image)
    commands = {
        "PyTorch and transformers": ["-c", _PYTORCH, str(folder / "checkpoint"), str(image)],
        "clip-infer, float32": ["-m", "clip_toolkit.commands.infer", str(image), "--model", str(folder / "float.onnx")],
        "clip-infer, int8": ["-m", "clip_toolkit.commands.infer", str(image), "--model", str(folder / "int8.onnx")],
    }
    results: dict[str, list[tuple[float, int]]] = {name: [] for name in commands}
    for _ in range(_ROUNDS + 1):
        for name, arguments in commands.items():
            results[name].append(_process([sys.executable, "-W", "ignore", *arguments]))
    return [
        Cold(name, statistics.median(seconds for seconds, _ in runs[1:]), max(peak for _, peak in runs[1:]))
        for name, runs in results.items()
    ]


def measure_apart(folder: Path) -> list[Cold]:
    """`measure_cold` from a small process."""
    done = subprocess.run([sys.executable, __file__, str(folder)], check=True, capture_output=True, text=True)
    return [Cold(**row) for row in json.loads(done.stdout)]


def _process(command: list[str]) -> tuple[float, int]:
    code, seconds, peak, _ = timed_process(command)
    if code:
        raise RuntimeError(f"failed with {code}: {command}")
    return seconds, peak


def timed_process(command: list[str]) -> tuple[int, float, int, str]:
    """Run a command; return its exit code, seconds, largest resident memory in bytes, and what it said on stderr."""
    start = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors) as process,
    ):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        errors.seek(0)
        return process.returncode, seconds, usage.ru_maxrss * 1024, errors.read()


if __name__ == "__main__":
    print(json.dumps([asdict(row) for row in measure_cold(Path(sys.argv[1]))]))
