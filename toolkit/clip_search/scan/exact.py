"""The exact scan: the vectors nearest to a query, without looking closely at each.

A first pass over int8 codes, half the bytes of float16, gives limits between which each product lies
(`clip_search.scan.codes`). A vector whose upper limit is below the k-th largest lower limit cannot be among the
first k; the others, a few dozen or hundred of a million, are multiplied again in float64 with the float16 vectors
themselves. So the result is that of a full scan in float64, to the bit, whatever the blocks, the threads and the
kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from clip_search.scan.byte_products import Products, fastest_products
from clip_search.scan.codes import Codes, limits
from clip_toolkit.runtime.processor import usable_cores

_BLOCK = 2**15
"""Vectors a block: large enough for the arithmetic on its limits to be cheap, small enough to share out."""

_RESCORED_AT_ONCE = 4096  # 16 MiB of float64 at 512 components


def nearest(
    vectors: NDArray[np.float16],
    codes: Codes,
    query: NDArray[np.float32],
    k: int,
    *,
    threads: int | None = None,
    products: Products | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the ``k`` vectors with the largest products with a query, largest first; equal ones by row.

    Args:
        vectors: float16 ``[n, dim]``.
        codes: of these vectors.
        query: float32 ``[dim]``, finite.
        k: at least 1; all vectors if there are fewer.
        threads: default all usable cores.
        products: of bytes; default the fastest there is.

    Returns:
        Rows, int64 ``[k]``, and products, float64 ``[k]``.
    """
    rows = _candidates(codes, query, k, threads or usable_cores(), products or fastest_products())
    return best(rows, rescored(vectors, rows, query), k)


def rescored(vectors: NDArray[np.float16], rows: NDArray[np.int64], query: NDArray[np.float32]) -> NDArray[np.float64]:
    """Products of some vectors with a query, in float64, each one summed in the same order wherever it stands."""
    scores = np.empty(len(rows))
    exact_query = query.astype(np.float64)
    for start in range(0, len(rows), _RESCORED_AT_ONCE):
        some = rows[start : start + _RESCORED_AT_ONCE]
        scores[start : start + len(some)] = (vectors[some].astype(np.float64) * exact_query).sum(axis=1)
    return scores


def best(rows: NDArray[np.int64], scores: NDArray[np.float64], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the ``k`` largest scores, largest first; equal ones by row."""
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]


def _candidates(
    codes: Codes, query: NDArray[np.float32], k: int, threads: int, products: Products
) -> NDArray[np.int64]:
    """Rows, ascending, among which the first ``k`` are."""
    query_codes = Codes.of(_of_middling_length(query)[None])
    starts = range(0, len(codes.values), _BLOCK)
    with ThreadPoolExecutor(threads) as pool:
        parts = list(
            pool.map(lambda first: _survivors(codes, query_codes, k, starts[first::threads], products), range(threads))
        )
    rows, lower, upper = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return np.sort(rows[upper >= _kth_largest(lower, k)])


def _of_middling_length(query: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scale a query by a power of two, which changes no order, so that no limit overflows or vanishes."""
    exact = query.astype(np.float64)
    _, exponent = np.frexp(np.abs(exact).max(initial=0))
    scaled: NDArray[np.float64] = np.ldexp(exact, -exponent)
    return scaled


def _survivors(
    codes: Codes, query: Codes, k: int, starts: range, products: Products
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Of some blocks, the rows whose upper limit reaches the k-th largest lower limit, with both limits."""
    rows, lower, upper = np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32)
    threshold = -np.inf
    for block_rows, block_lower, block_upper in _limits_of_blocks(codes, query, starts, products):
        kept = block_upper >= max(threshold, _kth_largest(block_lower, k) if threshold == -np.inf else threshold)
        rows = np.concatenate([rows, block_rows[kept]])
        lower = np.concatenate([lower, block_lower[kept]])
        upper = np.concatenate([upper, block_upper[kept]])
        threshold = _kth_largest(lower, k)
        still = upper >= threshold
        rows, lower, upper = rows[still], lower[still], upper[still]
    return rows, lower, upper


def _limits_of_blocks(
    codes: Codes, query: Codes, starts: range, products: Products
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]]:
    for start in starts:
        block = codes.rows(start, min(start + _BLOCK, len(codes.values)))
        yield (
            np.arange(start, start + len(block.values)),
            *limits(block, products(block.values, query.values[0]), query),
        )


def _kth_largest(values: NDArray[np.float32], k: int) -> float:
    """Minus infinity, which excludes nothing, where there are fewer."""
    return float(np.partition(values, -k)[-k]) if len(values) >= k else -np.inf
