"""Sets of labels: the rule, the promise, and what it needs."""

import numpy as np
import pytest

from clip_toolkit.errors import DatasetError
from clip_toolkit.judging.coverage import coverage_spread, fit_coverage
from clip_toolkit.spec.decisions import label_sets, mass_before


def made(count: int, seed: int, labels: int = 5):
    """Probabilities of a model that is surer of itself than it should be, and the right labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, labels))
    targets = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    exponents = np.exp(2 * logits)
    return (exponents / exponents.sum(1, keepdims=True)).astype(np.float32), targets


def test_a_label_is_in_if_those_before_it_sum_up_to_the_quantile():
    probabilities = np.float32([[0.125, 0.5, 0.25, 0.125], [0.25, 0.25, 0.25, 0.25]])
    np.testing.assert_array_equal(mass_before(probabilities), [[0.75, 0, 0.5, 0.875], [0, 0.25, 0.5, 0.75]])
    np.testing.assert_array_equal(
        label_sets(probabilities, 0.5), [[False, True, True, False], [True, True, True, False]]
    )
    assert label_sets(probabilities, 0.0).sum(1).tolist() == [1, 1]  # never empty
    assert label_sets(probabilities[0], 1.0).all()


def test_the_promise_holds_on_average_of_many_calibrations_and_no_more_is_promised():
    shares = []
    for seed in range(300):
        known, found = made(60, 2 * seed), made(200, 2 * seed + 1)
        coverage = fit_coverage(*known, 0.9)
        shares.append(label_sets(found[0], coverage.quantile)[np.arange(200), found[1]].mean())
    assert np.mean(shares) == pytest.approx(0.905, abs=0.01)  # (n + 1) 0.9 rounds up to 55 of 61
    assert np.std(shares) == pytest.approx(np.hypot(coverage_spread(coverage), np.sqrt(0.09 / 200)), rel=0.15)


def test_the_quantile_is_that_of_finite_samples():
    scores = np.linspace(0, 0.9, 19)  # mass before the right label, which is the second one
    probabilities = np.stack([scores, 1 - scores], 1)[scores > 0.5]
    targets = np.ones(len(probabilities), int)
    coverage = fit_coverage(probabilities, targets, 0.7)
    ordered = np.sort(probabilities[:, 0])
    rank = int(np.ceil((len(targets) + 1) * 0.7))
    assert ordered[rank - 1] < coverage.quantile < ordered[rank]
    assert label_sets(probabilities, coverage.quantile)[:, 1].sum() == rank


@pytest.mark.parametrize(("share", "least"), [(0.9, 9), (0.95, 19), (0.99, 99), (0.5, 1)])
def test_too_few_images_are_refused_with_how_many_are_needed(share: float, least: int):
    probabilities, targets = made(least, 0)
    assert fit_coverage(probabilities, targets, share).images == least
    if least > 1:
        with pytest.raises(DatasetError, match=f"at least {least} images to promise that; there are {least - 1}"):
            fit_coverage(probabilities[1:], targets[1:], share)


def test_where_the_most_probable_label_keeps_the_promise_sets_have_one_label():
    probabilities = np.float32([[0.6, 0.4]] * 50)
    targets = np.array([1, *[0] * 49])
    coverage = fit_coverage(probabilities, targets, 0.9)
    assert coverage.quantile == 0
    assert label_sets(probabilities, coverage.quantile).sum() == 50
