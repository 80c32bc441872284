"""Which encoder to take, by size, speed, accuracy and licence: our own files, and what others publish.

As a program, ``small.py FOLDER [NAME ...]`` makes the files alone.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from contenders import Contender
from interleave import Timing, measure

from clip_export.encoders.image import Encoder
from clip_export.graph.network import network_graph
from clip_export.heads.mlp import VLMtoMLP
from clip_export.quantization.evidence.feeds import Feeds
from clip_export.quantization.layers.linears import with_plain_linears
from clip_export.quantization.search import Choice, Int8Search
from clip_export.quantization.targets import find_target
from clip_export.samples.pictures import picture
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.spec.tasks import SINGLE_LABEL
from encoders import SHAPES, save_shape


class Published(NamedTuple):
    """What others say of an encoder, each with its source.

    Attributes:
        checkpoint: that has this shape.
        accuracy: zero-shot on ImageNet-1k, in percent.
        source: of the accuracy, in `SOURCES`.
        license: of the weights.
        license_source: of that.
    """

    checkpoint: str
    accuracy: float
    source: str
    license: str
    license_source: str


SOURCES = {
    "open_clip": "mlfoundations/open_clip, docs/openclip_results.csv",
    "TinyCLIP": "microsoft/Cream, TinyCLIP/README.md",
    "Apple": "apple/MobileCLIP2-B, README.md",
}

PUBLISHED = {
    "b32": Published("`openai/clip-vit-base-patch32`", 63.3, "open_clip", "MIT", "openai/CLIP"),
    "tiny40": Published("`wkcn/TinyCLIP-ViT-40M-32-Text-19M-LAION400M`", 59.8, "TinyCLIP", "MIT", "microsoft/Cream"),
    "tiny8": Published("`wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M`", 41.1, "TinyCLIP", "MIT", "microsoft/Cream"),
    "mobileclip": Published("`apple/MobileCLIP2-S0`", 71.5, "Apple", "apple-amlr: research alone", "its model card"),
    "siglip": Published("`google/siglip-base-patch16-224`", 76.0, "open_clip", "Apache-2.0", "its model card"),
    "l14": Published("`openai/clip-vit-large-patch14`", 75.5, "open_clip", "MIT", "openai/CLIP"),
}
"""By the names of `encoders.SHAPES`."""

_BOTH = ("float32", "int8")
_MEASURED = tuple(f"{precision} {unit}" for unit in ("ms", "x", "MiB") for precision in _BOTH)
HEADINGS = ("encoder", "checkpoint", *_MEASURED, "accuracy", "licence")

INTRODUCTION = """\
One image, {threads} threads, our own files with random weights in the true shapes, every file in turn, {rounds} rounds.
int8 is what the search of `clip-export` begins with: static ranges, of dense convolutions, too.
*x* is the time relative to that of ViT-B/32 in the same precision: the median of the rounds' ratios. Accuracy is what
the sources publish for the trained weights, zero-shot on ImageNet-1k, in float32; a trained head is another matter. The
licence is that of the repository or the model card that is named."""


def time_small(folder: Path, threads: int, rounds: int) -> list[Timing]:
    """Time both files of every encoder, in turns; what no earlier run has left in the folder is made first."""
    paths = {name: make_files(name, folder) for name in PUBLISHED if SHAPES[name].family != "timm" or _has_timm()}
    files = [(f"{name} {precision}", paths[name] / f"{precision}.onnx") for name in paths for precision in _BOTH]
    return measure([Contender(name, "onnxruntime", path) for name, path in files], 1, threads, rounds)


def make_files(name: str, folder: Path) -> Path:
    """Write both files of an encoder, with a head of random weights, into a folder of its name, and return that."""
    folder = folder / name
    paths = [folder / f"{precision}.onnx" for precision in _BOTH]
    if not paths[-1].is_file():
        save_shape(SHAPES[name], folder / "checkpoint")
        encoder = Encoder.from_pretrained(str(folder / "checkpoint"))
        shutil.rmtree(folder / "checkpoint")
        model = network_graph(encoder, VLMtoMLP(encoder.dim, 256, 3).eval(), "image", "ort")
        side = encoder.preprocessing.size
        images = Feeds({"image": np.stack([np.asarray(picture(side, side, seed)) for seed in range(8)])})
        search = Int8Search(with_plain_linears(model), images, find_target("auto"), "ort", SINGLE_LABEL, 0.0, print)
        for path, made in zip(paths, (model, search.build(Choice("min-max"))), strict=True):
            with written_atomically(path) as temporary:  # what is there is taken for whole by the next run
                temporary.write_bytes(made.SerializeToString())
    return folder


def _has_timm() -> bool:
    return find_spec("open_clip") is not None


def small_table(rows: Sequence[Timing], threads: int) -> Iterator[str]:
    """Yield the table, the most accurate last."""
    found = {row.name: row for row in rows}
    yield INTRODUCTION.format(threads=threads, rounds=len(rows[0].rounds))
    yield ""
    yield f"| {' | '.join(HEADINGS)} |"
    yield f"|{' --- |' * len(HEADINGS)}"
    for name, published in sorted(PUBLISHED.items(), key=lambda item: item[1].accuracy):
        both = [found.get(f"{name} {precision}") for precision in _BOTH]
        columns = [_cells(row, found[f"b32 {precision}"]) for row, precision in zip(both, _BOTH, strict=True)]
        cells = [
            SHAPES[name].title,
            published.checkpoint,
            *(cell for pair in zip(*columns, strict=True) for cell in pair),
            f"{published.accuracy} % ({published.source})",
            f"{published.license} ({published.license_source})",
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield f"Accuracies: {'; '.join(f'{name}: {where}' for name, where in SOURCES.items())}."


def _cells(row: Timing | None, base: Timing) -> tuple[str, str, str]:
    """Milliseconds, time relative to another encoder's, and MiB."""
    if row is None:
        return "not measured", "", ""
    return f"{row.per_image * 1e3:.1f}", f"{1 / row.speed_over(base):.2f}", f"{(row.size or 0) / 2**20:.0f}"


if __name__ == "__main__":
    for each in sys.argv[2:] or PUBLISHED:
        make_files(each, Path(sys.argv[1]))
