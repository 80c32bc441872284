"""Whether images are still like those that reference statistics are of: tests without a table of distributions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.judging.answers import Array

DRAWS = 9_999
"""Samples behind a simulated p-value, which is 1 / (`DRAWS` + 1) at the least; the same at every call."""

FEWEST = 30
"""Images below which the means of their embeddings are too uncertain to be compared."""


def shares_p(reference: Array, found: Array) -> float:
    """Test whether two counts of the same labels come from the same shares.

    A G-test whose p-value is that of random tables with the same margins, so that rare labels do not mislead it
    (Patefield 1981, doi:10.2307/2346669).

    Args:
        reference: int ``[labels]``.
        found: likewise.
    """
    both = reference + found
    kept = both > 0
    rng = np.random.default_rng(0)
    draws = rng.multivariate_hypergeometric(both[kept], int(found.sum()), DRAWS, method="marginals")
    statistics = _g(np.concatenate([found[kept][None], draws]), both[kept])
    return _share(statistics[1:] >= statistics[0] * (1 - 1e-9))


def share_p(counts: tuple[int, int], totals: tuple[int, int]) -> float:
    """Test whether two shares, counts of totals, are equal: Fisher's exact test (1922, doi:10.2307/2340521)."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, sum(totals) + 1)))])  # of factorials

    def choose(total: int, part: Array) -> Array:
        return np.asarray(logs[total] - logs[part] - logs[total - part])

    both = sum(counts)
    first = np.arange(max(0, both - totals[1]), min(both, totals[0]) + 1)
    chances = choose(totals[0], first) + choose(totals[1], both - first) - choose(sum(totals), np.array(both))
    observed = chances[counts[0] - first[0]]
    return min(1.0, float(np.exp(chances[chances <= observed + 1e-7]).sum()))


def _g(found: Array, both: Array) -> NDArray[np.float64]:
    """Compute Wilks' G ``[n]`` of rows of counts ``[n, labels]`` against the rest of ``both``."""
    total, part = both.sum(), found.sum(1, keepdims=True)
    sides = ((found, part), (both - found, total - part))
    return np.asarray(
        sum(2 * (side * np.log(np.where(side, side, 1) * total / (both * size))).sum(1) for side, size in sides)
    )


def mean_p(embedding: Array, mean: Array, spread: Array, count: int) -> float:
    """Test whether the mean of embeddings is that of the reference images.

    The statistic is the squared distance of the means, each dimension in units of its spread. Its distribution is that
    of a sum of chi-square variables weighted by the eigenvalues of the embeddings' covariance (Box 1954,
    doi:10.1214/aoms/1177728786), which is estimated from the new images: the file has no covariance.

    Args:
        embedding: ``[n, dim]``, of at least `FEWEST` images.
        mean: ``[dim]``, of the reference images.
        spread: ``[dim]``, their standard deviations; dimensions of 0 are left out.
        count: how many reference images there were.
    """
    varied = spread > 0
    scaled = (embedding[:, varied] - mean[varied]) / spread[varied]
    weights = np.linalg.eigvalsh(np.atleast_2d(np.cov(scaled, rowvar=False))).clip(0)
    squares = np.random.default_rng(0).chisquare(1, (DRAWS, len(weights)))
    return _share(squares @ weights * (1 / len(scaled) + 1 / count) >= np.square(scaled.mean(0)).sum())


def mean_distance(embedding: Array, mean: Array, spread: Array) -> float:
    """Return how far the means are apart: the root mean square over the dimensions, each in units of its spread."""
    varied = spread > 0
    return float(np.sqrt(np.square((embedding.mean(0) - mean)[varied] / spread[varied]).mean()))


def _share(beyond: NDArray[np.bool_]) -> float:
    return float((beyond.sum() + 1) / (len(beyond) + 1))
