"""Groups of images that are the same file, or nearly the same picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clip_search.scan.matrix import Matrix
from clip_search.store.database import Row

THRESHOLD = 0.995
"""Cosine similarity from which two pictures count as nearly the same; docs/search.md has the evidence."""

EXACT, NEAR = "exact", "near"

_BLOCK = 2048  # of rows against as many: 16 MiB of float32 products


@dataclass(frozen=True)
class Duplicate:
    """A member of a group of duplicates.

    Attributes:
        path: full path.
        score: cosine similarity with the member most like it.
        kind: ``exact`` where another member has the same content, else ``near``.
    """

    path: Path
    score: float
    kind: str


def duplicates(root: Path, matrix: Matrix, copies: Iterable[Row], threshold: float) -> list[list[Duplicate]]:
    """Group the same or nearly the same images, by path.

    A group holds whatever a chain of pairs connects, so that its ends may be less alike than ``threshold``.

    Args:
        root: the indexed folder.
        matrix: its embeddings.
        copies: the files whose content more than one has, by content.
        threshold: least cosine similarity; from 1 on only the same content counts.
    """
    groups = Groups(len(matrix.embeddings))
    scores = np.zeros(len(matrix.embeddings), np.float32)
    exact = _join_copies(groups, matrix, copies)
    scores[exact] = 1
    if threshold < 1:
        for first, second, products in near_pairs(matrix.embeddings, threshold):
            np.maximum.at(scores, first, products)
            np.maximum.at(scores, second, products)
            for one, other in zip(first.tolist(), second.tolist(), strict=True):
                groups.join(one, other)
    kinds = dict.fromkeys(exact, EXACT)
    return [
        [Duplicate(root / matrix.path(row), min(float(scores[row]), 1.0), kinds.get(row, NEAR)) for row in group]
        for group in groups.of_many()
    ]


def _join_copies(groups: Groups, matrix: Matrix, copies: Iterable[Row]) -> list[int]:
    """Join the rows of equal content, and return them; what was added since the matrix was read has none."""
    digests = {row.path: row.digest for row in copies}
    if not digests:
        return []
    rows = [row for row in range(len(matrix.embeddings)) if matrix.path(row) in digests]
    of_content: dict[bytes | None, list[int]] = {}
    for row in rows:
        of_content.setdefault(digests[matrix.path(row)], []).append(row)
    copied = [same for same in of_content.values() if len(same) > 1]
    for first, *others in copied:
        for other in others:
            groups.join(first, other)
    return [row for same in copied for row in same]


def near_pairs(
    vectors: NDArray[np.float16], threshold: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """All pairs of rows with a product of at least ``threshold``, block by block.

    The products take float32 and ``n * n / 2 * dim`` multiplications: seconds for 20,000 images, minutes for 100,000.

    Args:
        vectors: float16 ``[n, dim]``, L2-normalised.
        threshold: least cosine.

    Yields:
        First rows, second (larger) rows and products, of equal length.
    """
    for top in range(0, len(vectors), _BLOCK):
        upper = vectors[top : top + _BLOCK].astype(np.float32)
        for left in range(top, len(vectors), _BLOCK):
            products = upper @ (upper if left == top else vectors[left : left + _BLOCK].astype(np.float32)).T
            first, second = np.nonzero(products >= threshold)
            kept = first + top < second + left
            first, second = first[kept], second[kept]
            yield first + top, second + left, products[first, second]


class Groups:
    """A partition of ``0 .. n - 1`` that grows by joining: union-find with path halving."""

    def __init__(self, count: int) -> None:
        """Every number by itself."""
        self._parent = list(range(count))

    def join(self, one: int, other: int) -> None:
        """Make one group of two."""
        first, second = self._root(one), self._root(other)
        self._parent[max(first, second)] = min(first, second)

    def of_many(self) -> list[list[int]]:
        """Return the groups of at least two, by their smallest member; members ascending."""
        members: dict[int, list[int]] = {}
        for number in range(len(self._parent)):
            members.setdefault(self._root(number), []).append(number)
        return [group for group in members.values() if len(group) > 1]

    def _root(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number
