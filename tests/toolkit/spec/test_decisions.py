"""The threshold rule: one for predictions, training and quantization."""

import numpy as np
import pytest

from clip_toolkit import Prediction
from clip_toolkit.spec.decisions import decide
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

RNG = np.random.default_rng(5)
LABELS = ("ant", "bee")


@pytest.mark.parametrize(
    ("task", "thresholds"),
    [
        (SINGLE_LABEL, {}),
        (SINGLE_LABEL, {"ant": 0.9}),
        (SINGLE_LABEL, {"bee": 0.2}),
        (MULTI_LABEL, {}),
        (MULTI_LABEL, {"bee": 0.8}),
        (REGRESSION, {}),
    ],
)
def test_a_batch_is_decided_as_its_predictions_are(task: str, thresholds: dict[str, float]):
    probabilities = RNG.dirichlet([1, 1], 200).astype(np.float32)
    found = decide(probabilities, task, LABELS, thresholds)
    assert found.shape == (200, 2)
    for row, predicted in zip(probabilities, found, strict=True):
        said = Prediction(LABELS, row, row, row, "", task, thresholds).decisions
        assert said == tuple(np.array(LABELS)[predicted])


def test_thresholds_are_met_from_equality_on_and_compared_exactly():
    just_below = np.float32(0.7)  # 0.699999988
    assert decide(np.array([just_below]), MULTI_LABEL, ("a",), {"a": float(just_below)}).tolist() == [True]
    assert decide(np.array([just_below]), MULTI_LABEL, ("a",), {"a": 0.7}).tolist() == [False]
    both = np.array([0.5, 0.5], np.float32)
    assert decide(both, SINGLE_LABEL, LABELS, {}).tolist() == [True, False]
    assert decide(both, SINGLE_LABEL, LABELS, {"bee": 0.5}).tolist() == [False, True]
    assert decide(both, SINGLE_LABEL, LABELS, {"ant": 0.6}).tolist() == [False, True]
