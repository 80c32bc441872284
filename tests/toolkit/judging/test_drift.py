"""Tests of drift: their p-values, against scipy's and against what they mean."""

import numpy as np
import pytest

from clip_toolkit.judging import drift
from clip_toolkit.judging.drift import mean_distance, mean_p, share_p, shares_p


@pytest.fixture(scope="module")
def stats():
    """Tests of scipy."""
    return pytest.importorskip("scipy.stats", reason="needs scipy")


@pytest.mark.parametrize(
    ("before", "after"), [([300, 200, 100], [80, 90, 30]), ([300, 200, 100], [52, 30, 19]), ([500, 500], [61, 39])]
)
def test_shares_are_tested_as_by_scipy(stats, before: list[int], after: list[int]):
    expected = stats.chi2_contingency([before, after], correction=False, lambda_="log-likelihood").pvalue
    assert shares_p(np.array(before), np.array(after)) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("counts", "totals"), [((38, 7), (40, 10)), ((0, 9), (50, 60)), ((3, 3), (30, 30)), ((0, 0), (5, 5))]
)
def test_two_shares_are_tested_exactly(stats, counts: tuple[int, int], totals: tuple[int, int]):
    table = [[count, total - count] for count, total in zip(counts, totals, strict=True)]
    assert share_p(counts, totals) == pytest.approx(stats.fisher_exact(table).pvalue)


def test_no_simulation_limits_how_small_the_p_of_a_share_is():
    assert share_p((0, 300), (1000, 1000)) < 1e-80


def test_labels_that_nobody_has_change_nothing():
    assert shares_p(np.array([30, 0, 70]), np.array([9, 0, 12])) == shares_p(np.array([30, 70]), np.array([9, 12]))
    assert shares_p(np.array([10, 0]), np.array([10, 0])) == 1
    assert shares_p(np.array([1000, 0]), np.array([0, 1000])) == 1 / (drift.DRAWS + 1)


def test_means_of_one_dimension_are_tested_as_by_scipy(stats):
    rng = np.random.default_rng(0)
    before, after = rng.normal(0, 1, (400, 1)), rng.normal(0.1, 1, (200, 1))
    expected = stats.ttest_ind(before, after).pvalue[0]
    assert 0.05 < expected < 0.9
    assert mean_p(after, before.mean(0), before.std(0), 400) == pytest.approx(expected, abs=0.03)


def test_means_of_dependent_dimensions_are_told_no_more_often_than_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(drift, "DRAWS", 499)
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(16, 16)) * np.geomspace(1, 0.05, 16)  # as embeddings: few directions vary most
    found = []
    for _ in range(300):
        before, after = rng.normal(size=(120, 16)) @ mix, rng.normal(size=(60, 16)) @ mix
        found.append(mean_p(after, before.mean(0), before.std(0), 120))
    assert (np.array(found) < 0.05).mean() == pytest.approx(0.05, abs=0.03)
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_a_moved_mean_is_found_and_measured():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(500, 8)), rng.normal(size=(200, 8)) + 0.5
    assert mean_p(after, before.mean(0), before.std(0), 500) == 1 / (drift.DRAWS + 1)
    assert mean_distance(after, before.mean(0), before.std(0)) == pytest.approx(0.5, abs=0.1)
    constant = np.concatenate([after, np.ones((200, 1))], 1)
    mean, spread = np.append(before.mean(0), 1.0), np.append(before.std(0), 0.0)
    assert mean_distance(constant, mean, spread) == mean_distance(after, before.mean(0), before.std(0))
    assert mean_p(constant, mean, spread, 500) == 1 / (drift.DRAWS + 1)
