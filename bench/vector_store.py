"""LanceDB's approximate index beside the exact scan: recall at 10, times, and what it takes to build.

``vector_store.py write ROWS FOLDER``, then ``index PARTITIONS FOLDER``, then ``ask FOLDER``. The vectors are drawn:
clusters of unit vectors of 512 numbers. Queries are neighbours of some of them. Embeddings of images differ: measure on
your own.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import IvfPq
from numpy.typing import NDArray

from clip_search.scan.codes import Codes
from clip_search.scan.exact import nearest

DIM, K, QUERIES, CLUSTERS, BLOCK = 512, 10, 50, 4000, 50_000
ITERATIONS, SAMPLES = 10, 64  # of k-means, and vectors a partition for it; by default 50 and 256: twenty times the work


def drawn(rows: int) -> NDArray[np.float16]:
    """Draw clusters of unit vectors."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, DIM)).astype(np.float32)
    found = np.empty((rows, DIM), np.float16)
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        block = centres[rng.integers(0, CLUSTERS, count)]
        block = block + rng.normal(size=block.shape).astype(np.float32)
        found[start : start + count] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return found


def queries(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return neighbours of some vectors."""
    rng = np.random.default_rng(1)
    some = vectors[rng.integers(0, len(vectors), QUERIES)].astype(np.float32)
    moved = some + 0.5 / np.sqrt(DIM) * rng.normal(size=some.shape).astype(np.float32)
    found: NDArray[np.float32] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return found


def batches(vectors: NDArray[np.float16], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield rows as `clip_search.exchange.exporting` does, named by their numbers."""
    for start in range(0, len(vectors), BLOCK):
        some = vectors[start : start + BLOCK]
        names = pa.array([str(number) for number in range(start, start + len(some))])
        values = pa.FixedSizeListArray.from_arrays(pa.array(some.ravel().astype(np.float32)), DIM)
        yield pa.RecordBatch.from_arrays([names, values], schema=schema)


def write(rows: int, folder: Path) -> Iterator[str]:
    """Draw the vectors, and write them as a file and as a table of LanceDB."""
    vectors = drawn(rows)
    np.save(folder / "vectors.npy", vectors)
    schema = pa.schema([("path", pa.string()), ("embedding", pa.list_(pa.float32(), DIM))])
    start = time.perf_counter()
    lancedb.connect(folder).create_table("images", batches(vectors, schema), schema=schema, mode="overwrite")
    yield f"{rows:,} x {DIM}: written in {time.perf_counter() - start:.0f} s"


def index(partitions: int, folder: Path) -> Iterator[str]:
    """Build the index."""
    start = time.perf_counter()
    images = lancedb.connect(folder).open_table("images")
    config = IvfPq("dot", num_partitions=partitions, num_sub_vectors=64, max_iterations=ITERATIONS, sample_rate=SAMPLES)
    images.create_index("embedding", config=config)
    minutes, busy = (time.perf_counter() - start) / 60, time.process_time() / 60
    yield f"{partitions} partitions, indexed in {minutes:.1f} minutes, {busy:.1f} of processor time"


def ask(folder: Path) -> Iterator[str]:
    """Yield a table in Markdown."""
    vectors = np.load(folder / "vectors.npy")
    asked, codes = queries(vectors), Codes.of(vectors)
    exact, taken = [], []
    for query in asked:
        start = time.perf_counter()
        found, _ = nearest(vectors, codes, query, K)
        taken.append(time.perf_counter() - start)
        exact.append({str(row) for row in found.tolist()})
    images = lancedb.connect(folder).open_table("images")
    yield "| | recall at 10 | ms, median | ms, worst of 50 |"
    yield "| --- | --- | --- | --- |"
    yield f"| exact scan | 1.000 | {statistics.median(taken) * 1000:.1f} | {max(taken) * 1000:.1f} |"
    for probes, refine in ((5, 10), (20, 10), (50, 20)):
        hits, times = 0, []
        for query, wanted in zip(asked, exact, strict=True):
            start = time.perf_counter()
            search = (
                images.search(query, vector_column_name="embedding").distance_type("dot").select(["path", "_distance"])
            )
            rows = search.nprobes(probes).refine_factor(refine).limit(K).to_list()
            times.append(time.perf_counter() - start)
            hits += len(wanted & {row["path"] for row in rows})
        recall = hits / (K * len(asked))
        figures = f"{recall:.3f} | {statistics.median(times) * 1000:.1f} | {max(times) * 1000:.1f}"
        yield f"| LanceDB, nprobes {probes}, refine_factor {refine} | {figures} |"


if __name__ == "__main__":
    stages = {"write": write, "index": index}
    place = Path(sys.argv[-1])
    lines = ask(place) if sys.argv[1] == "ask" else stages[sys.argv[1]](int(sys.argv[2]), place)
    print("\n".join(lines))
