"""``bench/nncf_int8.py FOLDER``: shorter and smaller int8 files against NNCF's int8 of the whole encoder, on OpenVINO.

CLIP ViT-B/32 in true shapes at random weights, all cores, one process. Every file is timed in turns with
another: a busy machine meets both alike, so that the ratios are the figures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from quantized import quantize_with_nncf
from worker import openvino_runner

from clip_export.encoders.image import Encoder
from clip_export.graph.network import network_graph
from clip_export.heads.mlp import VLMtoMLP
from clip_export.tuning.files import static_int8
from clip_export.tuning.timing import Run, machine, runner, timed_in_turns
from clip_toolkit.images.preprocess import normalise
from clip_toolkit.runtime.openvino_engine import OpenVinoSession
from clip_toolkit.runtime.processor import usable_cores
from encoders import SUBJECTS, save_checkpoint

POINTS = (("pooled", 224), ("class+mean@6", 224), ("class+mean@6", 160), ("class+mean@4", 160))
"""Features and input sizes; the first is the whole encoder."""

_TUNED_ON = 16
_NNCF, _PIXELS = "NNCF on OpenVINO", "ours for pixels on OpenVINO"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench/nncf_int8.py", description="Measure int8 files against NNCF's.")
    parser.add_argument("folder", type=Path, help="for the files, which are made once")
    parser.add_argument("--batch", type=int, default=1, help="images a run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=25, help="turns of each pair (default: %(default)s)")
    args = parser.parse_args()
    args.folder.mkdir(exist_ok=True)
    checkpoint = save_checkpoint(SUBJECTS["b32"], args.folder / "checkpoint")
    whole = Encoder.from_pretrained(str(checkpoint))
    nncf, pixels = (
        openvino_runner(str(path), args.batch, usable_cores()) for path in _for_openvino(whole, args.folder)
    )
    print(f"{machine()}, batch {args.batch}\n\n| | against | times as fast | scatter |\n| --- | --- | --- | --- |")
    for feature, size in POINTS:
        path = args.folder / f"{feature}-{size}.onnx"
        if not path.is_file():
            _write(Encoder.from_pretrained(str(checkpoint), feature=feature, input_size=size), path)
        run, title = runner(path, size, args.batch), f"{feature}, {size}, {path.stat().st_size / 2**20:.1f} MiB"
        _row(title, run, _NNCF, nncf, args.rounds)
        if (feature, size) == POINTS[0]:
            _row(title, run, _PIXELS, pixels, args.rounds)
    _row(_PIXELS, pixels, _NNCF, nncf, args.rounds)
    cut = Encoder.from_pretrained(str(checkpoint), feature=POINTS[1][0])
    path = args.folder / "standard8-cut.onnx"
    if not path.is_file():
        _write_for_pixels(cut, path)
    run = openvino_runner(str(path), args.batch, usable_cores())
    _row(f"{POINTS[1][0]} for pixels on OpenVINO", run, _NNCF, nncf, args.rounds)
    engine = _engine(whole, args.folder, args.batch)
    _row("--device openvino, which normalises pixels", engine, _PIXELS, pixels, args.rounds)


def _for_openvino(whole: Encoder, folder: Path) -> tuple[Path, Path]:
    """Return NNCF's file and ours, of a network that takes normalised pixels."""
    network, theirs, ours = (folder / name for name in ("pixels.onnx", "nncf.xml", "standard8.onnx"))
    if not ours.is_file():
        onnx.save(network_graph(whole, _head(whole), "pixels", "standard"), network)
        quantize_with_nncf(network, theirs, _values(whole))
        _write_for_pixels(whole, ours)
    return theirs, ours


def _write_for_pixels(encoder: Encoder, path: Path) -> None:
    model = network_graph(encoder, _head(encoder), "pixels", "standard")
    path.write_bytes(static_int8(model, _values(encoder), "standard").SerializeToString())


def _values(encoder: Encoder) -> NDArray[np.float32]:
    return normalise(_images(_TUNED_ON, encoder.preprocessing.size), encoder.preprocessing)


def _write(encoder: Encoder, path: Path) -> None:
    model = network_graph(encoder, _head(encoder), "image", "ort")
    path.write_bytes(static_int8(model, _images(_TUNED_ON, encoder.preprocessing.size)).SerializeToString())


def _head(encoder: Encoder) -> VLMtoMLP:
    return VLMtoMLP(encoder.dim, 256, 10).eval()


def _images(count: int, size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def _engine(encoder: Encoder, folder: Path, batch: int) -> Run:
    """As the runtime does it: sizes of batches are open, and pixels are normalised for every run."""
    session = OpenVinoSession(str(folder / "standard8.onnx"), usable_cores())
    images = _images(batch, encoder.preprocessing.size)
    return lambda: session.run(["logits"], {"pixel_values": normalise(images, encoder.preprocessing)})


def _row(name: str, run: Run, other: str, reference: Run, rounds: int) -> None:
    seconds, ratio, scatter = timed_in_turns(reference, run, rounds)
    print(f"| {name} | {other}, {1e3 * seconds:.0f} ms | {1 / ratio:.2f} | {scatter:.0%} |", flush=True)


if __name__ == "__main__":
    main()
