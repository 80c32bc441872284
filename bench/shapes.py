"""Encoders of true shape through the commands themselves: do they export, how well, in what time and memory.

Run as a program of its own, ``shapes.py FOLDER``: the kernel counts a parent's memory as its child's peak, so that the
parent has to be small. What it has made stays in the folder, but for the checkpoints.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cold import timed_process
from PIL import Image

from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.model_file import read_spec

FILES = {"float32": (), "int8": ("--quantize", "int8", "--search-minutes", "1")}
LARGE = FILES | {"fp16": ("--quantize", "fp16")}
SHAPES = ("b32", "tiny40", "tiny8", "mobileclip", "eva02", "pe-core", "dinov3", "siglip", "naflex", "l14", "h14")
"""Names of `encoders.SHAPES`, in the order of the tables."""

COLOURS = ("red", "green", "blue")
PICTURES = 120


@dataclass(frozen=True)
class Export:
    """One export by ``clip-export``.

    Attributes:
        name: of the encoder, as in `encoders.SHAPES`.
        precision: ``float32``, ``int8`` or ``fp16``.
        seconds: of the whole command.
        peak: largest resident memory in bytes.
        size: of the file in bytes; 0 if it was refused.
        said: the error of one that was refused, else what the file's receipt says.
    """

    name: str
    precision: str
    seconds: float
    peak: int
    size: int
    said: str


def measure_shapes(folder: Path, names: tuple[str, ...] = SHAPES) -> Iterator[Export]:
    """Export every shape in every precision, with a head that was trained on drawn pictures by ``clip-train``."""
    pictures = _draw(folder / "pictures")
    for name in names:
        checkpoint, head = folder / name / "checkpoint", folder / name / "head.pt"
        if not head.is_file():
            shutil.rmtree(checkpoint, ignore_errors=True)
            _done(["bench/encoders.py", name, str(checkpoint)])
            options = ["--epochs", "60", "--lr", "0.001", "--no-cache", "--out", str(head)]
            _done(["-m", "clip_export.commands.train", str(pictures), "--encoder", str(checkpoint), *options])
        yield from _exports(name, folder / name)
        shutil.rmtree(checkpoint)
        head.unlink()


def exports_apart(folder: Path) -> Iterator[Export]:
    """`measure_shapes` from a small process."""
    command = [sys.executable, "-W", "ignore", __file__, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield from (Export(**json.loads(line)) for line in process.stdout)
    if process.returncode:
        raise RuntimeError(f"failed with {process.returncode}: {command}")


def _exports(name: str, folder: Path) -> Iterator[Export]:
    for precision, options in (LARGE if name == "h14" else FILES).items():
        path = folder / f"{precision}.onnx"
        command = ["-m", "clip_export.commands.export", "--head", str(folder / "head.pt"), "-o", str(path), *options]
        code, seconds, peak, error = timed_process([sys.executable, "-W", "ignore", *command])
        if code:
            yield Export(name, precision, seconds, peak, 0, error.strip().splitlines()[-1])
        else:
            _done(["-m", "clip_toolkit.commands.infer", "--selftest", str(path)])
            yield Export(name, precision, seconds, peak, path.stat().st_size, _receipt(read_spec(path)))


def _receipt(spec: ModelSpec) -> str:
    if spec.quantization is not None:
        found = spec.quantization
        return f"{found.agreement:.2%} of {found.evaluation_images} decisions, {found.speed_ratio:.2f} x as fast"
    parity = spec.parity
    assert parity is not None
    assert parity.graph is not None
    pillow, graph = (side.logits / parity.logit_scale for side in (parity.pillow, parity.graph))
    return f"logits {pillow:.1e} of scale {parity.logit_scale:.3g}, with the graph's resize {graph:.1e}"


def _draw(folder: Path) -> Path:
    """Pictures of one prevailing colour each, which any encoder tells apart."""
    for index in range(0 if folder.is_dir() else PICTURES):
        label = index % len(COLOURS)
        noise = Image.effect_noise((320 - index % 60, 240 + index % 40), 90)
        channels = [noise if channel == label else noise.point(lambda value: value // 2) for channel in range(3)]
        (folder / COLOURS[label]).mkdir(parents=True, exist_ok=True)
        Image.merge("RGB", channels).save(folder / COLOURS[label] / f"{index}.png")
    return folder


def _done(command: list[str]) -> None:
    subprocess.run([sys.executable, "-W", "ignore", *command], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    for row in measure_shapes(Path(sys.argv[1]), tuple(sys.argv[2:]) or SHAPES):
        print(json.dumps(asdict(row)), flush=True)
