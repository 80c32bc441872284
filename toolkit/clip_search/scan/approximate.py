"""The optional approximate index: a usearch graph over the matrix, derived and checksummed like it.

Worth it from many millions of vectors on, or for many queries a second: among a million the exact scan takes 12 ms,
this one 2 (docs/benchmarks.md), after many minutes of building.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_search.scan.checksum import digest_of, is_still
from clip_search.scan.exact import best, rescored
from clip_search.scan.matrix import Matrix
from clip_toolkit.errors import MissingDependencyError
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.runtime.devices import import_onnxruntime
from clip_toolkit.runtime.processor import usable_cores

FILE = "approximate.usearch"
_EXPANSION = 256
"""Nodes of the graph that a search keeps in sight. Of a million vectors in `bench/search.py` the first ten are found
with a recall of 0.90 by 64, usearch's default, 0.97 by 128, 0.991 by 256, and 0.992 by 512, which takes twice as long.
"""

_FEW = 10_000
"""Vectors that one thread adds in a second: several may leave nodes of a small graph without a way to them."""

_MORE = 4
"""How many times as many are asked for as are wanted: what the graph finds is multiplied again, exactly."""


def read_graph(folder: Path, matrix: Matrix, digest: str) -> Any | None:
    """Open the graph; None where it is missing, damaged, or of another matrix than this.

    Raises:
        MissingDependencyError: usearch is not installed.
    """
    usearch = _import_usearch()
    path = folder / FILE
    try:
        with path.open("rb") as file:
            if _digest(folder, matrix) != digest:
                return None
            graph = usearch.Index.restore(str(path), view=True)
            if not is_still(file, path):
                return None
    except OSError:
        return None
    graph.expansion_search = _EXPANSION
    return graph


def write_graph(folder: Path, matrix: Matrix) -> str:
    """Build the graph, which takes minutes for a million vectors.

    Returns:
        The digest that `read_graph` asks for.

    Raises:
        MissingDependencyError: usearch is not installed.
        OutputError: the file cannot be written.
    """
    usearch = _import_usearch()
    count, dim = matrix.embeddings.shape
    graph = usearch.Index(ndim=dim, metric="ip", dtype="f16")
    if count:
        threads = usable_cores() if count > _FEW else 1
        graph.add(np.arange(count, dtype=np.uint64), np.asarray(matrix.embeddings), threads=threads)
    with written_atomically(folder / FILE) as temporary:
        graph.save(str(temporary))
    return _digest(folder, matrix)


def nearest_in_graph(
    graph: Any, matrix: Matrix, query: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows and scores as of `clip_search.scan.exact.nearest`, of those that the graph finds."""
    if not len(matrix.embeddings):
        return np.empty(0, np.int64), np.empty(0)
    found = graph.search(query.astype(np.float16), min(k * _MORE, len(matrix.embeddings)))
    rows = np.sort(np.asarray(found.keys, np.int64))
    return best(rows, rescored(matrix.embeddings, rows, query), k)


def _digest(folder: Path, matrix: Matrix) -> str:
    return hashlib.sha256((matrix.digest + digest_of([folder / FILE])).encode()).hexdigest()


def _import_usearch() -> Any:
    with suppress(MissingDependencyError):
        import_onnxruntime()  # first: loaded in the other order, the two have crashed
    try:
        import usearch.index
    except ImportError as error:
        raise MissingDependencyError(
            "the approximate index needs usearch: pip install 'clip-toolkit[search]'"
        ) from error
    return usearch.index
