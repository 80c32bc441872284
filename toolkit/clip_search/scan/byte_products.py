"""Exact products of int8 vectors: by numkong's kernels where it is installed, else by NumPy.

Both give the same integers. NumPy has no fast product of bytes; a float32 one is exact, in any order of summation, as
long as every partial sum is below 2**24, and so for up to 1,040 components of at most 127; longer vectors go in parts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clip_search.scan.codes import LARGEST

Products: TypeAlias = Callable[[NDArray[np.int8], NDArray[np.int8]], NDArray[np.floating] | NDArray[np.int32]]
"""Of vectors ``[n, dim]`` and a query ``[dim]``: ``[n]``, whole numbers."""

_EXACT_COMPONENTS = 2**24 // LARGEST**2
_ROWS_IN_CACHE = 1024  # as float32 2 MiB at 512 components


def numpy_products(vectors: NDArray[np.int8], query: NDArray[np.int8]) -> NDArray[np.float64]:
    """Through float32 products of blocks in the cache; not by BLAS, whose own threads would get in our way."""
    products = np.zeros(len(vectors))
    for left in range(0, len(query), _EXACT_COMPONENTS):
        part = query[left : left + _EXACT_COMPONENTS].astype(np.float32)
        block = np.empty((min(_ROWS_IN_CACHE, len(vectors)), len(part)), np.float32)
        for start in range(0, len(vectors), _ROWS_IN_CACHE):
            rows = vectors[start : start + _ROWS_IN_CACHE, left : left + len(part)]
            np.copyto(block[: len(rows)], rows)
            products[start : start + len(rows)] += np.einsum("ij,j->i", block[: len(rows)], part)
    return products


@cache
def fastest_products() -> Products:
    """Numkong's where it is installed, else NumPy's."""
    kernels = _import_numkong()
    if kernels is None:
        return numpy_products

    def products(vectors: NDArray[np.int8], query: NDArray[np.int8]) -> NDArray[np.int32]:
        found: NDArray[np.int32] = np.asarray(kernels.cdist(query[None], vectors, metric="dot"))[0]
        return found

    return products


def _import_numkong() -> Any:
    try:
        import numkong
    except ImportError:
        return None
    return numkong
