"""Thresholds of each rule, against a search of all of them."""

import numpy as np
import pytest

from clip_toolkit.errors import DatasetError
from clip_toolkit.judging.thresholds import OperatingRule, choose_thresholds, threshold_at
from clip_toolkit.spec.tasks import MULTI_LABEL, SINGLE_LABEL

RNG = np.random.default_rng(0)


def rates(scores: np.ndarray, positive: np.ndarray, threshold: float) -> tuple[float, float]:
    said = scores >= threshold
    return said[positive].mean(), (~said)[~positive].mean()


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95, 1.0])
def test_thresholds_reach_what_was_asked_and_waste_nothing(share: float):
    positive = RNG.random(300) < 0.3
    scores = (0.3 * positive + 0.7 * RNG.random(300)).round(2)  # with ties
    for kind, position in (("sensitivity", 0), ("specificity", 1)):
        threshold = threshold_at(scores, positive, OperatingRule(kind, share))
        reached = rates(scores, positive, threshold)
        assert reached[position] >= share
        every = [rates(scores, positive, t) for t in np.linspace(0, 1.01, 203)]
        assert reached[1 - position] == max(pair[1 - position] for pair in every if pair[position] >= share)
        assert not np.isclose(scores, threshold).any()


def test_youden_is_the_best_sum():
    positive = RNG.random(200) < 0.5
    scores = 0.4 * positive + 0.6 * RNG.random(200)
    best = max(sum(rates(scores, positive, t)) for t in [*scores, 1.1])
    assert sum(rates(scores, positive, threshold_at(scores, positive, OperatingRule("youden")))) == pytest.approx(best)


def test_thresholds_by_task():
    answers, targets = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]]), np.array([0, 1, 1])
    rule = OperatingRule.parse("sensitivity=1")
    assert choose_thresholds(answers, targets, SINGLE_LABEL, ("a", "b"), OperatingRule()) == {}
    assert choose_thresholds(answers, targets, SINGLE_LABEL, ("a", "b"), rule) == {"b": pytest.approx(0.2)}
    assert choose_thresholds(answers, targets, SINGLE_LABEL, ("a", "b"), rule, positive="a") == {
        "a": pytest.approx(0.8)
    }
    several = choose_thresholds(answers, np.eye(2)[targets], MULTI_LABEL, ("a", "b"), rule)
    assert list(several) == ["a", "b"]
    with pytest.raises(DatasetError, match="two labels"):
        choose_thresholds(np.eye(3), np.arange(3), SINGLE_LABEL, ("a", "b", "c"), rule)
    with pytest.raises(DatasetError, match="expected one of a, b, got 'z'"):
        choose_thresholds(answers, targets, SINGLE_LABEL, ("a", "b"), rule, positive="z")


@pytest.mark.parametrize("text", ["best", "sensitivity", "specificity=2", "sensitivity=x", "youden=0.5"])
def test_unknown_rules(text: str):
    with pytest.raises(ValueError, match="expected most-probable"):
        OperatingRule.parse(text)


@pytest.mark.parametrize(
    ("text", "share"),
    [("sensitivity=9e-1", 0.9), ("sensitivity=1.00", 1), ("sensitivity=+0.95", 0.95), ("specificity=.5", 0.5)],
)
def test_a_share_is_any_number(text: str, share: float):
    rule = OperatingRule.parse(text)
    assert rule == OperatingRule(text.partition("=")[0], share)
    assert OperatingRule.parse(str(rule)) == rule
