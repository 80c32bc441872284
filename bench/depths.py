"""``bench/depths.py SHAPE``: what a shallower encoder and a smaller input buy in time and size, at random weights.

Every file is timed in turns with the whole encoder in float32 at its own size; the figures of a busy machine are those
ratios. One image of the file's own size, all cores.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from clip_export.encoders.image import Encoder
from clip_export.graph.network import network_graph
from clip_export.heads.mlp import VLMtoMLP
from clip_export.tuning.files import static_int8
from clip_export.tuning.timing import machine, runner, timed_in_turns
from encoders import LARGE, SUBJECTS, save_checkpoint

SHAPES = {"b32": SUBJECTS["b32"], "b16": SUBJECTS["b16"], "l14-336": LARGE}
POINTS = {
    "b32": (("pooled", 224), ("class+mean@6", 224), ("pooled", 160), ("class+mean@6", 160)),
    "b16": (("pooled", 224), ("class+mean@6", 224), ("pooled", 160), ("class+mean@6", 160)),
    "l14-336": (("pooled", 336), ("class+mean@12", 336), ("pooled", 224), ("class+mean@12", 224)),
}
"""Features and input sizes; the first is the reference."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench/depths.py", description="Measure cut encoders and smaller inputs.")
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--rounds", type=int, default=25, help="turns of each file with the reference")
    args = parser.parse_args()
    shape = args.shape
    reference, noise = None, np.random.default_rng(0)
    print(f"{SHAPES[shape].title}; {machine()}\n")
    print("| feature | input | precision | MiB | ms | x | scatter |\n| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        checkpoint = save_checkpoint(SHAPES[shape], Path(name) / "checkpoint")
        for feature, size in POINTS[shape]:
            encoder = Encoder.from_pretrained(str(checkpoint), feature=feature, input_size=size)
            model = network_graph(encoder, VLMtoMLP(encoder.dim, 256, 10), "image", "ort")
            images = noise.integers(0, 256, (4, size, size, 3), np.uint8)
            for precision in ("float32", "int8"):
                path = Path(name) / f"{precision}.onnx"
                made = model if precision == "float32" else static_int8(model, images)
                path.write_bytes(made.SerializeToString())
                run = runner(path, size)
                reference = reference or run
                seconds, ratio, scatter = timed_in_turns(reference, run, args.rounds)
                cells = f"{path.stat().st_size / 2**20:.1f} | {1e3 * ratio * seconds:.1f} | {1 / ratio:.2f}"
                print(f"| {feature} | {size} | {precision} | {cells} | {scatter:.0%} |", flush=True)


if __name__ == "__main__":
    main()
