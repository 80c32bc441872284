"""Which encoder to take, by size, speed, accuracy and licence: our files of `shapes`, and what others publish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from contenders import Contender
from interleave import Timing, measure

from encoders import SHAPES


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
}

PUBLISHED = {
    "b32": Published("`openai/clip-vit-base-patch32`", 63.3, "open_clip", "MIT", "openai/CLIP"),
    "tiny40": Published("`wkcn/TinyCLIP-ViT-40M-32-Text-19M-LAION400M`", 59.8, "TinyCLIP", "MIT", "microsoft/Cream"),
    "tiny8": Published("`wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M`", 41.1, "TinyCLIP", "MIT", "microsoft/Cream"),
    "siglip": Published("`google/siglip-base-patch16-224`", 76.0, "open_clip", "Apache-2.0", "its model card"),
    "l14": Published("`openai/clip-vit-large-patch14`", 75.5, "open_clip", "MIT", "openai/CLIP"),
}
"""By the names of `encoders.SHAPES`."""

_BOTH = ("float32", "int8")
_MEASURED = tuple(f"{precision} {unit}" for unit in ("ms", "x", "MiB") for precision in _BOTH)
HEADINGS = ("encoder", "checkpoint", *_MEASURED, "accuracy", "licence")

INTRODUCTION = """\
One image, {threads} threads, our own files with random weights in the true shapes, every file in turn, {rounds} rounds.
*x* is the time relative to that of ViT-B/32 in the same precision: the median of the rounds' ratios. Accuracy is what
the sources publish for the trained weights, zero-shot on ImageNet-1k, in float32; a trained head is another matter. The
licence is that of the repository or the model card that is named."""


def time_small(folder: Path, threads: int, rounds: int) -> list[Timing]:
    """Time both files of every encoder that `shapes` has exported, in turns."""
    files = [(f"{name} {precision}", folder / name / f"{precision}.onnx") for name in PUBLISHED for precision in _BOTH]
    made = [Contender(name, "onnxruntime", path) for name, path in files if path.is_file()]
    return measure(made, 1, threads, rounds)


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
