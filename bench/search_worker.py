"""One way to search, in a process of its own as ``worker.py``: ``search_worker.py ENGINE FOLDER BATCH THREADS``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from worker import serve

from clip_search.scan.byte_products import Products, fastest_products, numpy_products
from clip_search.scan.exact import nearest
from clip_search.scan.matrix import Matrix, read_matrix

K = 10
VECTORS, QUERIES, DIGEST = "float32.npy", "queries.npy", "digest.txt"

Search = Callable[[np.ndarray], np.ndarray]
"""From a query, float32 ``[dim]``, to the rows found."""


def matrix_of(folder: Path) -> Matrix:
    """Return the derived files of an index."""
    matrix = read_matrix(folder, (folder / DIGEST).read_text(encoding="ascii"))
    assert matrix is not None
    return matrix


def numpy_search(folder: Path, _: int) -> Search:
    """Return a product with all vectors in float32, in memory."""
    vectors = np.load(folder / VECTORS)

    def search(query: np.ndarray) -> np.ndarray:
        scores = vectors @ query
        rows = np.argpartition(-scores, K)[:K]
        return rows[np.argsort(-scores[rows])]

    return search


def exact_search(folder: Path, threads: int, products: Products | None = None) -> Search:
    """Ours."""
    matrix, products = matrix_of(folder), products or fastest_products()
    return lambda query: nearest(matrix.embeddings, matrix.codes, query, K, threads=threads, products=products)[0]


def usearch_exact(folder: Path, threads: int) -> Search:
    """Return the scan of float16 vectors that usearch itself has."""
    import onnxruntime  # noqa: F401  # first: loaded in the other order, the two have crashed
    from usearch.index import MetricKind, search

    vectors = np.load(folder / "embeddings.npy", mmap_mode="r")
    return lambda query: search(
        vectors, query.astype(np.float16), K, MetricKind.IP, exact=True, threads=threads
    ).keys.astype(np.int64)


SEARCHES: dict[str, Callable[[Path, int], Search]] = {
    "numpy": numpy_search,
    "exact": exact_search,
    "exact-numpy": lambda folder, threads: exact_search(folder, threads, numpy_products),
    "usearch-exact": usearch_exact,
}


def main() -> None:
    """Serve the parent, one query a run."""
    engine, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[4])
    queries = np.load(folder / QUERIES)

    def opened() -> Callable[[], object]:
        search, number = SEARCHES[engine](folder, threads), iter(range(10**9))
        return lambda: search(queries[next(number) % len(queries)])

    serve(opened, None)


if __name__ == "__main__":
    main()
