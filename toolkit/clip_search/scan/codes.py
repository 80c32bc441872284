"""Vectors as int8 codes with a proved bound on what the rounding costs.

A vector ``x`` becomes ``x = scale * codes + rest``. For two such vectors, by the Cauchy-Schwarz inequality::

    | x.y - scale_x * scale_y * codes_x.codes_y |
        = | rest_x.y + (scale_x * codes_x).rest_y |  <=  |rest_x| * |y| + |scale_x * codes_x| * |rest_y|

so that a product of bytes, and the length of what the rounding left, say between which limits the true product lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LARGEST = 127

_ROUNDING = 1e-5
"""Added, relative to the vectors' lengths, for the float32 arithmetic of the bounds themselves: a few operations of a
relative error of 2**-24 each."""


@dataclass(frozen=True)
class Codes:
    """Vectors in int8.

    Attributes:
        values: int8 ``[n, dim]``, from -127 to 127.
        scale: float32 ``[n]``.
        rest: float32 ``[n]``: length of what the codes leave of a vector.
        length: float32 ``[n]``: length of ``scale * values``.
    """

    values: NDArray[np.int8]
    scale: NDArray[np.float32]
    rest: NDArray[np.float32]
    length: NDArray[np.float32]

    @classmethod
    def of(cls, vectors: NDArray[np.floating]) -> Codes:
        """Round finite vectors ``[n, dim]``, each by its own largest component."""
        exact = vectors.astype(np.float64)
        largest = np.abs(exact).max(axis=1, initial=0)
        scale = (largest / LARGEST).astype(np.float32)
        scale[scale == 0] = 1  # also of what is too small for float32: it is all rest
        values = np.rint(exact / scale[:, None]).clip(-LARGEST, LARGEST).astype(np.int8)
        coded = values * scale.astype(np.float64)[:, None]
        return cls(values, scale, _upwards(_norm(exact - coded)), _upwards(_norm(coded)))

    def rows(self, start: int, stop: int) -> Codes:
        """Return some of the vectors."""
        return Codes(self.values[start:stop], self.scale[start:stop], self.rest[start:stop], self.length[start:stop])


def limits(
    codes: Codes, products: NDArray[np.floating] | NDArray[np.int32], query: Codes
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Between which numbers the true products of vectors with one query lie.

    Args:
        codes: of the vectors.
        products: exact products of their codes with the query's, ``[n]``.
        query: of the query, ``n = 1``.

    Returns:
        Lower and upper limits, float32 ``[n]``.
    """
    query_norm = query.length[0] + query.rest[0]
    middle = products.astype(np.float32) * (codes.scale * query.scale[0])
    width = (
        codes.rest * query_norm + codes.length * query.rest[0] + (codes.length + codes.rest) * query_norm * _ROUNDING
    )
    return middle - width, middle + width


def _norm(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return lengths


def _upwards(exact: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.nextafter(exact.astype(np.float32), np.float32(np.inf))
