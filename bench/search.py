"""Search among a million synthetic vectors: time, memory and recall; writes a section of docs/benchmarks.md."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from contenders import Contender
from interleave import Timing, measure
from search_worker import DIGEST, QUERIES, SEARCHES, VECTORS, K
from sections import replaced_section

from clip_search.scan.matrix import write_matrix
from clip_toolkit.runtime.processor import usable_cores

ROOT = Path(__file__).parents[1]
TITLE = "Search among {count:,} vectors of {dim}"
QUERY_COUNT = 100
CENTRES = 20_000
NAMES = {
    "numpy": ("NumPy, float32", VECTORS),
    "exact": ("**ours, exact**", "codes.npy bounds.npy embeddings.npy"),
    "exact-numpy": ("ours, exact, without numkong", "codes.npy bounds.npy embeddings.npy"),
    "usearch-exact": ("usearch, exact, float16", "embeddings.npy"),
}
TEXT = """\
One query, the first {k} of {count:,} vectors of {dim} numbers, {cores} threads. The vectors lie around {centres:,}
centres, each off by about as much as it is long, the queries off a vector by a third. *Recall* is the share of the
exact first {k} that is found, over {queries} queries; *peak* counts the pages of mapped files that were touched.
`bench/search.py` measures it.
"""


def main() -> None:
    """Make the vectors, measure, write."""
    args = parse_args()
    folder = ROOT / "build" / "bench" / f"search-{args.count}"
    prepare(folder, args.count, args.dim)
    if args.prepare:
        return
    entries = [Contender(NAMES[engine][0], engine, folder) for engine in args.engines]
    worker = Path(__file__).with_name("search_worker.py")
    rows = measure(entries, 1, usable_cores(), args.rounds, worker)
    title = TITLE.format(count=args.count, dim=args.dim)
    page = args.out.read_text(encoding="utf-8")
    args.out.write_text(
        replaced_section(page, title, [*table(rows, folder, args), "", f"Measured {datetime.now(UTC):%Y-%m-%d}."]),
        encoding="utf-8",
    )


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="vectors (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=512, help="numbers of each (default: %(default)s)")
    parser.add_argument("--engines", nargs="+", choices=NAMES, default=list(NAMES), help="which (default: all)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of turns (default: %(default)s)")
    parser.add_argument("--prepare", action="store_true", help="make the files and stop")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="page to write")
    return parser.parse_args()


def prepare(folder: Path, count: int, dim: int) -> None:
    """Make vectors, queries and the derived files of an index, where they are not there yet."""
    if not (folder / DIGEST).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        vectors = make_vectors(folder, count, dim)
        rows = ((b"%09d.jpg" % row, vectors[row].astype("<f2").tobytes()) for row in range(count))
        (folder / DIGEST).write_text(write_matrix(folder, dim, count, rows), encoding="ascii")


def make_vectors(folder: Path, count: int, dim: int) -> np.ndarray:
    """Write the queries, and the vectors, which are returned."""
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((CENTRES, dim), dtype=np.float32))
    vectors = np.lib.format.open_memmap(folder / VECTORS, "w+", np.float32, (count, dim))
    for start in range(0, count, CENTRES):
        some = centres[rng.integers(0, CENTRES, min(CENTRES, count - start))]
        vectors[start : start + len(some)] = unit(some + off(rng, some.shape, 1.0))
    chosen = vectors[rng.integers(0, count, QUERY_COUNT)]
    np.save(folder / QUERIES, unit(chosen + off(rng, chosen.shape, 1 / 3)))
    return vectors


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each of L2 norm 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def off(rng: np.random.Generator, shape: tuple[int, ...], length: float) -> np.ndarray:
    """Random vectors of about that length."""
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(length / shape[1] ** 0.5)


def table(rows: list[Timing], folder: Path, args: argparse.Namespace) -> Iterator[str]:
    """Yield the section."""
    cores = usable_cores()
    yield TEXT.format(k=K, count=args.count, dim=args.dim, cores=cores, centres=CENTRES, queries=QUERY_COUNT)
    yield "| | ms | x NumPy | recall | peak MiB | files MiB | open s |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    found = {engine: first(folder, engine, cores) for engine in {"exact", *args.engines}}
    by_name = {row.name: row for row in rows}
    for engine in args.engines:
        name, files = NAMES[engine]
        row = by_name[name]
        size = sum((folder / file).stat().st_size for file in files.split())
        cells = (
            f"{row.per_image * 1e3:.1f}",
            f"{row.speed_over(rows[0]):.2f}",
            f"{recall(found[engine], found['exact']):.3f}",
            f"{row.peak / 2**20:.0f}",
            f"{size / 2**20:.0f}",
            f"{row.load:.1f}",
        )
        yield f"| {name} | {' | '.join(cells)} |"


def first(folder: Path, engine: str, threads: int) -> list[set[int]]:
    """Return what an engine finds for each query."""
    search = SEARCHES[engine](folder, threads)
    return [set(search(query).tolist()) for query in np.load(folder / QUERIES)]


def recall(found: list[set[int]], expected: list[set[int]]) -> float:
    """Return the share of what was expected that was found."""
    return sum(len(a & b) for a, b in zip(found, expected, strict=True)) / sum(map(len, expected))


if __name__ == "__main__":
    main()
