"""Images whose label is probably wrong: the rule, by hand and against cleanlab's where that is installed."""

import numpy as np
import pytest

from clip_toolkit.judging.mislabelled import Suspect, find_mislabelled


def flipped(seed: int, count: int = 600, labels: int = 4):
    """Probabilities of a good model, labels of which 8 % are wrong, and which those are."""
    rng = np.random.default_rng(seed)
    true, wrong = rng.integers(0, labels, count), rng.random(count) < 0.08
    targets = np.where(wrong, (true + rng.integers(1, labels, count)) % labels, true)
    logits = rng.normal(0, 1, (count, labels)) + 5 * (np.arange(labels) == true[:, None])
    exponents = np.exp(logits)
    return exponents / exponents.sum(1, keepdims=True), targets, wrong


def test_a_label_is_believed_from_its_usual_probability_on():
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7], [0.45, 0.55]])
    targets = np.array([0, 0, 0, 1, 1, 0])  # usual: of 0 (0.9 + 0.7 + 0.2 + 0.45) / 4, of 1 (0.6 + 0.7) / 2 = 0.65
    assert find_mislabelled(probabilities, targets) == [Suspect(2, 0, 1, (0.2, 0.8))]


def test_the_surest_come_first_and_most_are_right():
    probabilities, targets, wrong = flipped(0)
    found = find_mislabelled(probabilities, targets)
    margins = [suspect.probabilities[0] - suspect.probabilities[1] for suspect in found]
    assert margins == sorted(margins)
    assert all(suspect.label == targets[suspect.row] != suspect.other for suspect in found)
    rows = [suspect.row for suspect in found]
    assert wrong[rows].mean() > 0.9
    assert wrong[rows].sum() > 0.7 * wrong.sum()


def test_labels_that_no_image_has_and_sure_models_suspect_nothing():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7]])
    assert find_mislabelled(probabilities[:2], np.array([0, 1])) == []
    assert find_mislabelled(np.eye(3)[[0, 1, 2]], np.array([0, 1, 2])) == []


def test_the_list_is_that_of_cleanlab():
    filters = pytest.importorskip("cleanlab.filter", reason="needs cleanlab")
    probabilities, targets, _ = flipped(1)
    issues = filters.find_label_issues(targets, probabilities, filter_by="confident_learning", n_jobs=1)
    assert (
        sorted(suspect.row for suspect in find_mislabelled(probabilities, targets)) == np.flatnonzero(issues).tolist()
    )
