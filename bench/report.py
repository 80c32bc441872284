"""docs/benchmarks.md from what was measured."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from cold import Cold
from interleave import Timing
from quantized import FLOOR, NNCF, ON_OPENVINO, OPTIMUM, OURS, OUTLIER, PYTORCH, Quantized
from shapes import PICTURES, Export
from throughput import Rate

from encoders import SHAPES

_PACKAGES = ("torch", "transformers", "optimum-onnx", "onnxruntime", "openvino", "nncf", "numpy", "pillow")

_PREFACE = """# Benchmarks

Written by `make bench`. Each contender runs in a process of its own; they take turns of equal length, round after
round, so that whatever else the machine does meets all of them alike. A time is the median over the rounds, a ratio the
median of the rounds' ratios. **Trust the ratios, not the milliseconds.** Sections of different
dates come from different machines of that kind: compare within one. Weights are random, in the true shapes: speed
does not depend on their values. All computes in float32 where it does not say
int8, and all of it on the CPU, with as many threads as there are cores.
Behind each encoder is the default head (256 hidden units, 2 classes); Optimum's file is the encoder alone.

The *MatMul floor* is a graph of the very products that ours needs, and nothing else, on the same ONNX Runtime. Its
share of our time says how much is left to win without a faster product.
"""


_INT8 = """\
The same encoder in 8 bits. It has random weights in the true shapes, and outlier channels as trained CLIP encoders have
them (a few channels of every layer normalisation {factor:g} times as large, the weights behind as much smaller), which
change nothing in float. *Agreement* is the share of {pictures} held-out drawn pictures that get the class they get in
float32. Dynamic ranges (Optimum's `avx512_vnni`) are found at run time; the others were tuned on 128 pictures.
"""

_THROUGHPUT = """\
CLIP ViT-B/32, the files of the section on int8, 200 JPEGs of each size, batch 8: decode, resize, encode, classify.
The peers are the transformers pipeline over PyTorch and over Optimum's export. The floor is decoding and resizing
spread over all cores, and after that the network alone.
"""

_SHAPES = """\
Encoders with random weights of trained scale, in the format of their authors, through `clip-train` on {pictures} drawn
pictures of three colours and `clip-export` (`--search-minutes 1` for int8); every file passed its selftest. Parity:
largest difference of the logits from PyTorch, as a share of the largest one, with Pillow's resize and with that of the
graph. Seconds and peak are those of the whole export, one thread, on a machine that others used, too. One file holds
2 GiB: larger encoders are refused in float32, before the graph is traced, and written by `--quantize` where they fit
then; their float32 network is proved with its weights in a temporary file.
"""

Int8 = tuple[Quantized, list[Timing], dict[int, dict[str, float]]]


def preface() -> str:
    """Return what stands above the sections."""
    return f"{_PREFACE}\n{''.join(_machine())}\n\n"


def _machine() -> Iterator[str]:
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    yield f"{_processor()}, Python {platform.python_version()}, {versions}."


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    extras = [name.upper() for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if name in flags]
    return f"{len(names)} cores of {names[0]} ({', '.join(extras)})"


def encoder_table(rows: Sequence[Timing]) -> Iterator[str]:
    """One encoder in float32."""
    yield "| batch | | ms per image | x PyTorch | x Optimum | share of floor | file MiB | peak MiB | load s |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for batch in sorted({row.batch for row in rows}):
        group = {row.name: row for row in rows if row.batch == batch}
        floor = group["MatMul floor, ONNX Runtime"]
        for name, row in group.items():
            optimum = next((other for key, other in group.items() if key.startswith("Optimum")), None)
            share = f"{row.speed_over(floor):.2f}" if name.startswith("ours, ONNX") else ""
            cells = [
                str(batch),
                f"**{name}**" if name.startswith("ours, ONNX") else name,
                f"{row.per_image * 1e3:.1f}",
                f"{row.speed_over(group['PyTorch eager']):.2f}",
                f"{row.speed_over(optimum):.3f}" if optimum else "not exported",
                share,
                f"{row.size / 2**20:.0f}" if row.size else "",
                f"{row.peak / 2**20:.0f}",
                f"{row.load:.1f}",
            ]
            yield f"| {' | '.join(cells)} |"


def int8_table(files: Quantized, rows: Sequence[Timing], operators: dict[int, dict[str, float]]) -> Iterator[str]:
    """Yield the quantized files, and where the time of ours goes."""
    yield _INT8.format(factor=OUTLIER, pictures=files.pictures)
    yield (
        "| batch | | ms per image | x PyTorch | x Optimum int8 | x OpenVINO int8 | agreement | file MiB | peak MiB "
        "| load s |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    names = [entry.name for entry in files.contenders]
    for batch in operators:
        group = {row.name: row for row in rows if row.batch == batch}
        for name in names:
            row = group[name]
            agreement = files.agreement.get(name)
            cells = [
                str(batch),
                name,
                f"{row.per_image * 1e3:.1f}",
                *(f"{row.speed_over(group[other]):.2f}" for other in (PYTORCH, OPTIMUM, NNCF)),
                f"{agreement:.1%}" if agreement is not None else "",
                f"{_size(row, files) / 2**20:.0f}" if _size(row, files) else "",
                f"{row.peak / 2**20:.0f}",
                f"{row.load:.1f}",
            ]
            yield f"| {' | '.join(cells)} |"
    for batch, spent in operators.items():
        group = {row.name: row for row in rows if row.batch == batch}
        share = group[OURS].speed_over(group[FLOOR])
        image, pixels = (group[OURS].speed_over(group[name]) for name in ON_OPENVINO.values())
        total = sum(spent.values())
        parts = ", ".join(f"{name} {seconds / total:.1%}" for name, seconds in list(spent.items())[:8])
        yield (
            f"\nBatch {batch}: ONNX Runtime is {image:.2f} times as fast as OpenVINO with our file, which takes images,"
            f" and {pixels:.2f} times as fast as OpenVINO with one that leaves the preprocessing to others. "
            f"{share:.2f} of our time is the floor. Where it goes (profiled): {parts}."
        )


def shapes_table(rows: Iterable[Export]) -> Iterator[str]:
    """Yield what became of each export."""
    yield _SHAPES.format(pictures=PICTURES)
    yield "| encoder | file | what its receipt says | export s | peak MiB | file MiB |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        size = f"{row.size / 2**20:.0f}" if row.size else "refused"
        cells = [SHAPES[row.name].title, row.precision, row.said, f"{row.seconds:.0f}", f"{row.peak / 2**20:.0f}", size]
        yield f"| {' | '.join(cells)} |"


def _size(row: Timing, files: Quantized) -> int:
    """OpenVINO keeps its weights beside its graph."""
    (path,) = (entry.path for entry in files.contenders if entry.name == row.name)
    beside = path.with_suffix(".bin") if path.suffix == ".xml" else path
    return beside.stat().st_size if beside.is_file() else 0


def resize_table(rows: Sequence[tuple[str, float, float, float]]) -> Iterator[str]:
    """Pillow against the graph, by size of the image."""
    yield "| image | Pillow ms | graph, 1 thread ms | x | graph, all threads ms | x |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, pillow, one, many in rows:
        graph = " | ".join(f"{taken * 1e3:.1f} | {pillow / taken:.2f}" for taken in (one, many))
        yield f"| {name} | {pillow * 1e3:.1f} | {graph} |"


def cold_table(rows: Sequence[Cold]) -> Iterator[str]:
    """Whole processes."""
    yield "| | seconds | x | peak MiB |"
    yield "| --- | --- | --- | --- |"
    for row in rows:
        yield f"| {row.name} | {row.seconds:.2f} | {rows[0].seconds / row.seconds:.1f} | {row.peak / 2**20:.0f} |"


def throughput_table(rates: Sequence[Rate]) -> Iterator[str]:
    """From files to answers."""
    yield _THROUGHPUT
    yield "| image | | images/s | x PyTorch | x Optimum | x Optimum int8 | share of its floor |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    by_size: dict[str, list[Rate]] = {}
    for rate in rates:
        by_size.setdefault(rate.size, []).append(rate)
    for size, group in by_size.items():
        ours, floor, ours8, floor8, *peers = group
        for rate in (ours, ours8, *peers):
            over = " | ".join(f"{rate.over(peer):.2f}" for peer in peers)
            share = f"{rate.over(floor if rate is ours else floor8):.2f}" if rate in (ours, ours8) else ""
            yield f"| {size} | {rate.name} | {rate.median:.1f} | {over} | {share} |"
