"""Temperature, thresholds and figures, against other ways to the same numbers."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from clip_export.heads.calibration import BOUNDS, fit_temperature
from clip_export.heads.outputs import probabilities
from clip_export.training.epochs import Examples
from clip_export.training.judging.baseline import fit_baseline
from clip_export.training.judging.decisions import Judge, plain_score
from clip_export.training.judging.evaluation import evaluate
from clip_toolkit.judging.thresholds import OperatingRule
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

RNG = np.random.default_rng(0)


def outcomes(logits: torch.Tensor, task: str) -> torch.Tensor:
    """Targets drawn with the very probabilities of the logits, so that they are calibrated."""
    generator = torch.Generator().manual_seed(1)
    answers = probabilities(logits, task)
    if task == MULTI_LABEL:
        return torch.bernoulli(answers, generator=generator)
    return torch.multinomial(answers, 1, generator=generator)[:, 0]


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_over_and_under_confidence(task: str, factor: float):
    logits = 2 * torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    assert fit_temperature(logits * factor, outcomes(logits, task), task) == pytest.approx(factor, rel=0.05)


def test_temperatures_stay_within_bounds():
    right = torch.eye(4)
    assert fit_temperature(right, torch.arange(4).flip(0), SINGLE_LABEL) == BOUNDS[1]
    hesitant, targets = torch.eye(2).repeat(500, 1) / 100, torch.arange(2).repeat(500)
    targets[0] = 1  # one mistake in a thousand, at 50.2 % each
    assert fit_temperature(hesitant, targets, SINGLE_LABEL) == BOUNDS[0]
    assert fit_temperature(right, torch.arange(4), REGRESSION) == 1


@pytest.mark.parametrize("factor", [0.1, 1.0, 100.0])
def test_without_a_mistake_the_temperature_stays_at_1(factor: float):
    logits = factor * (torch.eye(4) - 0.5)
    assert fit_temperature(logits, torch.arange(4), SINGLE_LABEL) == 1
    assert fit_temperature(logits, torch.eye(4), MULTI_LABEL) == 1


class Fixed(nn.Module):
    """A head that passes its features on as logits."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def test_figures_are_those_of_scikit_learn():
    logits = torch.randn(200, 3, generator=torch.Generator().manual_seed(2)).round(decimals=1)
    targets = outcomes(2 * logits, SINGLE_LABEL)
    found = evaluate(Fixed(), Examples(logits, targets), ("a", "b", "c"), temperature=0.5)
    true, said, answers = targets.numpy(), logits.argmax(1).numpy(), torch.softmax(2 * logits, 1).numpy()
    np.testing.assert_allclose(found.probabilities, answers, rtol=1e-6)
    assert (found.confusion() == metrics.confusion_matrix(true, said)).all()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(true, said)
    for index, row in enumerate(found.by_label):
        figures = {name: figure.value for name, figure in row.figures.items()}
        assert row.support == support[index]
        assert figures["precision"] == pytest.approx(precision[index])
        assert figures["recall"] == pytest.approx(recall[index])
        assert figures["F1"] == pytest.approx(f1[index])
        assert figures["AUROC"] == pytest.approx(metrics.roc_auc_score(true == index, answers[:, index]))
        assert figures["AUPRC"] == pytest.approx(metrics.average_precision_score(true == index, answers[:, index]))
        assert all(figure.low <= figure.value <= figure.high for figure in row.figures.values())
    assert found.score.value == pytest.approx((true == said).mean())
    assert found.score.high - found.score.low == pytest.approx(4 * (0.25 / 200) ** 0.5, rel=0.4)


@pytest.mark.parametrize("right", [0, 1, 30, 48])
def test_the_interval_of_a_share_is_wilsons(right: int):
    logits, targets = torch.eye(2)[torch.zeros(48, dtype=torch.long)], (torch.arange(48) >= right).long()
    found = evaluate(Fixed(), Examples(logits, targets), ("a", "b"))
    expected = binomtest(right, 48).proportion_ci(method="wilson")
    for figure in (found.score, found.by_label[0].figures["precision"]):
        assert figure == pytest.approx((right / 48, expected.low, expected.high))
    assert found.score.high - found.score.low > 0.05
    assert np.isnan(found.by_label[1].figures["precision"].value)  # nothing was predicted to be b


def test_groups_make_intervals_wider():
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat_interleave(50, 0)  # ten groups, right or wrong as a whole
    examples = Examples(logits, torch.ones(100, dtype=torch.long))
    groups = [str(index // 10) for index in range(100)]
    alone, grouped = (evaluate(Fixed(), examples, ("a", "b"), groups=g).score for g in ((), groups))
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_a_label_without_examples_has_no_figures_and_does_no_harm():
    found = evaluate(Fixed(), Examples(torch.eye(3)[:2], torch.tensor([0, 1])), ("a", "b", "c"))
    assert np.isnan(found.by_label[2].figures["AUROC"].value)


ESTIMATORS = {
    SINGLE_LABEL: LogisticRegression(max_iter=1000),
    MULTI_LABEL: MultiOutputClassifier(LogisticRegression(max_iter=1000)),
    REGRESSION: Ridge(),
}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("feature_norm", [False, True])
@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL, REGRESSION])
def test_the_baseline_answers_as_scikit_learn_does(task: str, classes: int, feature_norm: bool):
    features = torch.randn(200, 5, generator=torch.Generator().manual_seed(3)) * torch.tensor([1, 1, 9, 1e-3, 1]) + 5
    read = torch.nn.functional.normalize(features) if feature_norm else features
    noisy = read + read.std(0) * torch.randn(200, 5, generator=torch.Generator().manual_seed(4))
    ranks = noisy[:, :classes].argsort(0).argsort(0).float()
    targets = {SINGLE_LABEL: ranks.argmax(1), MULTI_LABEL: (ranks > 100).float(), REGRESSION: ranks}[task]
    baseline = fit_baseline(Examples(features, targets), task, feature_norm=feature_norm)
    theirs = make_pipeline(StandardScaler(), ESTIMATORS[task]).fit(read.double().numpy(), targets.numpy())
    logits, expected = baseline(features), theirs.predict(read.double().numpy())
    if task == REGRESSION:
        np.testing.assert_allclose(logits, expected, rtol=1e-3)
    else:
        said = logits.argmax(1) if task == SINGLE_LABEL else (logits > 0).float()
        assert (said.numpy() == expected).mean() > 0.99
    assert plain_score(baseline, Examples(features, targets), task) > (0.2 if task == REGRESSION else 0.55)


def test_without_both_kinds_of_a_label_there_is_no_baseline():
    features, targets = torch.randn(8, 3), torch.tensor([[1.0, 0.0], [1.0, 1.0]]).repeat(4, 1)
    assert fit_baseline(Examples(features, targets), MULTI_LABEL) is None


def test_the_judge_brings_every_head_to_the_same_operating_point():
    generator = torch.Generator().manual_seed(5)
    targets = (torch.arange(400) % 8 == 0).long()
    signal = torch.stack([torch.zeros(400), 1.5 * targets - 3 + torch.randn(400, generator=generator)], 1)
    examples = Examples(signal, targets)
    judge = Judge(SINGLE_LABEL, ("well", "ill"), OperatingRule("sensitivity", 0.9))
    sharper = nn.Sequential(Fixed(), nn.Linear(2, 2))
    with torch.no_grad():
        sharper[1].weight.copy_(7 * torch.eye(2))
        sharper[1].bias.copy_(torch.tensor([0.0, 5.0]))
    for head in (Fixed(), sharper):  # they order the examples alike, and differ in all their probabilities
        answers = judge.answers(head, judge.decisions(head, examples), examples)
        found = answers.predicted[:, 1]
        assert 0.9 <= found[targets == 1].mean() < 0.93
        assert judge.score(head, examples, examples) == pytest.approx((found == targets.numpy().astype(bool)).mean())
    assert judge.score(sharper, examples, examples) == judge.score(Fixed(), examples, examples)
    assert plain_score(Fixed(), examples) > judge.score(Fixed(), examples, examples)  # most probable: well, always
