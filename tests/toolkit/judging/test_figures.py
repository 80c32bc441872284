"""Figures without scikit-learn, against scikit-learn's where it is installed."""

import numpy as np
import pytest

from clip_toolkit.judging.calibration import reliability
from clip_toolkit.judging.curves import area_under_roc, average_precision
from clip_toolkit.judging.scores import r_squared

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def metrics():
    """scikit-learn's figures."""
    return pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")


def test_r_squared_is_that_of_scikit_learn_and_is_defined_for_constant_values(metrics):
    true = RNG.normal(size=(50, 3))
    predicted = true + RNG.normal(size=(50, 3)) * [0.1, 1, 10]
    np.testing.assert_allclose(r_squared(true, predicted), metrics.r2_score(true, predicted, multioutput="raw_values"))
    assert r_squared(np.ones(4), np.ones(4)) == 1
    assert r_squared(np.ones(4), np.arange(4)) == 0
    assert np.isnan(r_squared(np.ones((1, 2)), np.ones((1, 2)))).all()


@pytest.mark.parametrize("digits", [1, 3])
def test_areas_are_those_of_scikit_learn_with_and_without_ties(metrics, digits: int):
    true = RNG.random(300) < 0.3
    scores = (0.3 * true + 0.7 * RNG.random(300)).round(digits)
    assert area_under_roc(true, scores) == pytest.approx(metrics.roc_auc_score(true, scores))
    assert average_precision(true, scores) == pytest.approx(metrics.average_precision_score(true, scores))


def test_areas_of_known_cases():
    true = np.array([True, False, True, False])
    assert area_under_roc(true, np.array([4, 3, 2, 1])) == 0.75
    assert average_precision(true, np.array([4, 3, 2, 1])) == pytest.approx((1 + 2 / 3) / 2)
    assert area_under_roc(true, np.ones(4)) == 0.5
    assert average_precision(true, np.ones(4)) == 0.5


def test_reliability_of_a_known_case():
    table, error = reliability(
        np.array([0.9] * 10 + [0.5] * 10), np.array([True] * 7 + [False] * 3 + [True] * 5 + [False] * 5)
    )
    assert sorted(table[:, 2].tolist()) == [10, 10]
    assert error == pytest.approx((0.2 * 10 + 0 * 10) / 20)
    assert reliability(np.array([1.0]), np.array([True]))[1] == 0
