"""The exact scan finds what a full scan in float64 finds, to the bit."""

import numpy as np
import pytest
from numpy.typing import NDArray

from clip_search.scan import exact as scan
from clip_search.scan.byte_products import fastest_products, numpy_products
from clip_search.scan.codes import Codes, limits
from clip_search.scan.exact import nearest

ENGINES = {"numpy": numpy_products, "fastest": fastest_products()}


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float16]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def vectors(kind: str) -> NDArray[np.float16]:
    rng = np.random.default_rng(7)
    random = rng.normal(size=(700, 48))
    if kind == "clustered":  # most limits overlap
        return unit(rng.normal(size=(1, 48)) + 0.01 * random)
    if kind == "copies":
        return unit(np.repeat(random[:70], 10, axis=0))
    if kind == "one large component":  # which makes the codes of all others coarse
        random[:, 3] *= 100
        return unit(random)
    if kind == "zeros":
        return np.zeros((700, 48), np.float16)
    return unit(random)


def full_scan(matrix: NDArray[np.float16], query: NDArray[np.float32], k: int):
    scores = (matrix.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    rows = sorted(range(len(matrix)), key=lambda row: (-scores[row], row))[:k]
    return rows, scores[rows]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["random", "clustered", "copies", "one large component", "zeros"])
@pytest.mark.parametrize(("k", "threads", "block"), [(1, 1, 2**15), (10, 2, 64), (33, 3, 100), (9999, 2, 64)])
def test_equals_a_full_scan(kind, engine, k, threads, block, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scan, "_BLOCK", block)
    matrix = vectors(kind)
    for query in (matrix[5].astype(np.float32), -matrix[6].astype(np.float32), np.zeros(48, np.float32)):
        rows, scores = nearest(matrix, Codes.of(matrix), query, k, threads=threads, products=ENGINES[engine])
        expected_rows, expected_scores = full_scan(matrix, query, k)
        assert rows.tolist() == expected_rows
        np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("length", [1e-45, 1e-42, 1e-30, 1e30, 3e38])
def test_queries_of_any_length(length: float):
    matrix = vectors("random")
    query = (matrix[5] / np.abs(matrix[5]).max() * np.float64(length)).astype(np.float32)
    rows, scores = nearest(matrix, Codes.of(matrix), query, 5, threads=1)
    expected_rows, expected_scores = full_scan(matrix, query, 5)
    assert rows.tolist() == expected_rows
    np.testing.assert_array_equal(scores, expected_scores)


def test_nothing_is_found_in_nothing():
    rows, scores = nearest(np.empty((0, 4), np.float16), Codes.of(np.empty((0, 4))), np.ones(4, np.float32), 3)
    assert (len(rows), len(scores)) == (0, 0)


def test_most_vectors_are_looked_at_once(monkeypatch: pytest.MonkeyPatch):
    """The point of the limits: almost nothing is multiplied a second time."""
    matrix = vectors("random")
    looked_at = []
    monkeypatch.setattr(scan, "rescored", lambda *_: looked_at.append(len(_[1])) or np.zeros(len(_[1])))
    nearest(matrix, Codes.of(matrix), matrix[0].astype(np.float32), 1)
    assert looked_at == [1]


@pytest.mark.parametrize("kind", ["random", "clustered", "one large component", "zeros"])
def test_the_true_product_lies_between_the_limits(kind: str):
    matrix, queries = vectors(kind), vectors("random")[:50]
    codes = Codes.of(matrix)
    for query in queries:
        coded = Codes.of(query[None])
        lower, upper = limits(codes, numpy_products(codes.values, coded.values[0]), coded)
        exact = matrix.astype(np.float64) @ query.astype(np.float64)
        assert np.all(lower <= exact)
        assert np.all(exact <= upper)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dim", [1, 3, 64, 1040, 1041, 2500])
def test_products_of_bytes_are_exact(engine: str, dim: int):
    rng = np.random.default_rng(dim)
    codes = rng.integers(-127, 128, (1030, dim), dtype=np.int8)
    codes[:2], query = 127, np.full(dim, 127, np.int8)
    codes[1] = -127
    np.testing.assert_array_equal(ENGINES[engine](codes, query), codes.astype(np.int64) @ query.astype(np.int64))
