"""Training heads on features: what is learnt, by which rules, and that a break changes nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clip_export.training.checkpoints import Checkpoints, fingerprint
from clip_export.training.epochs import Epoch, Examples
from clip_export.training.loop import Training, train_head
from clip_export.training.objective import Objective, score
from clip_export.training.options import TrainingOptions
from clip_export.training.state import TrainingState
from clip_export.training.sweep import sweep, trials_count
from clip_toolkit.errors import DatasetError, HeadError
from clip_toolkit.options import UsageError
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS

OPTIONS = TrainingOptions(epochs=30, learning_rate=1e-2, hidden_dim=16, seed=5)


def blobs(count: int, seed: int, task: str = SINGLE_LABEL) -> Examples:
    """Three clusters; as labels their number, as several labels two tests of it, as values two numbers far from 0."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 3
    features = torch.randn(count, 10, generator=generator) + 3 * torch.eye(3, 10)[targets]
    if task == MULTI_LABEL:
        targets = torch.stack([targets > 0, targets == 1], 1).float()
    if task == REGRESSION:
        targets = torch.stack([features[:, 0] * 30 + 500, features[:, 1] - features[:, 2]], 1)
    return Examples(features, targets)


OUTPUTS = {SINGLE_LABEL: 3, MULTI_LABEL: 2, REGRESSION: 2}


def trained(task: str = SINGLE_LABEL, used: TrainingOptions = OPTIONS, **more: object) -> Training:
    return train_head(blobs(150, 0, task), blobs(60, 1, task), OUTPUTS[task], used, task=task, **more)


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_training_learns_and_reports_what_it_learnt(task: str):
    reported: list[Epoch] = []
    training = trained(task, report=reported.append)
    assert tuple(reported) == training.history
    assert [epoch.number for epoch in reported] == list(range(1, 31))
    assert reported[-1].loss < reported[0].loss / 2
    test = blobs(60, 1, task)
    with torch.no_grad():
        found = score(training.head(test.features), test.targets, task)
    assert found == pytest.approx(training.best.val_score, abs=1e-4)
    assert found > 0.9
    assert not training.head.training


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adamw", "weight_decay": 0.01},
        {"schedule": "cosine"},
        {"schedule": "none"},
        {"hidden_dim": ()},
        {"hidden_dim": (16, 8), "activation": "gelu"},
        {"class_weights": "balanced"},
        {"label_smoothing": 0.1},
        {"patience": 3},
        {"standardise": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("task", TASKS)
def test_every_option_trains_every_task(task: str, change: dict[str, object]):
    assert trained(task, replace(OPTIONS, **change)).best.val_score > 0.8


def test_the_seed_decides_everything_and_leaves_the_callers_generator_alone():
    torch.manual_seed(1)
    first = trained()
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    assert same(first.head, trained().head)
    assert not same(first.head, trained(used=replace(OPTIONS, seed=6)).head)


def test_validation_examples_choose_the_epoch_and_nothing_else():
    last = replace(OPTIONS, keep_last=True)
    second = train_head(blobs(150, 0), blobs(90, 2), 3, last)
    assert same(trained(used=last).head, second.head)
    assert second.best == second.history[-1]


@pytest.mark.parametrize("change", [{"standardise": True, "feature_norm": "l2"}, {"patience": 3, "keep_last": True}])
def test_options_that_contradict_each_other(change: dict[str, object]):
    with pytest.raises(UsageError, match="does not go with"):
        replace(OPTIONS, **change)


def test_a_normalising_head_sees_directions_alone():
    training = trained(used=replace(OPTIONS, feature_norm="l2"))
    features = blobs(60, 1).features
    assert training.head.spec.feature_norm
    assert training.best.val_score > 0.9
    with torch.no_grad():
        torch.testing.assert_close(training.head(features), training.head(features * 7), atol=1e-4, rtol=1e-4)
        shorter = training.head.layers(torch.nn.functional.normalize(features))
        torch.testing.assert_close(training.head(features), shorter)


@pytest.mark.parametrize("patience", [None, 5])
def test_the_best_epoch_is_kept(patience: int | None):
    noise = Examples(blobs(60, 0).features, torch.arange(60).flip(0) % 3)
    used = replace(OPTIONS, epochs=60, hidden_dim=64, patience=patience)
    training = train_head(noise, blobs(60, 1), 3, used)
    best = min(training.history, key=lambda epoch: epoch.val_loss)
    assert training.best == best
    assert best.number < len(training.history) == (best.number + 5 if patience else 60)
    until = replace(used, epochs=best.number, patience=None, keep_last=True)
    assert same(training.head, train_head(noise, blobs(60, 1), 3, until).head)


def test_a_head_that_learnt_on_scaled_features_takes_plain_ones():
    data = blobs(150, 0)
    odd = Examples(torch.cat([data.features * 1e-3 + 5, torch.full((150, 1), 9.0)], 1), data.targets)
    plain, scaled = (train_head(odd, odd, 3, replace(OPTIONS, standardise=s)) for s in (False, True))
    with torch.no_grad():
        right = (scaled.head(odd.features).argmax(1) == odd.targets).float().mean()
    assert right == pytest.approx(scaled.best.val_score, abs=0.01)
    assert scaled.best.val_score > 0.9 > plain.best.val_score


def test_balanced_weights_are_those_of_scikit_learn():
    targets = torch.tensor([0] * 8 + [1] * 2)
    weights = Objective.fitted(SINGLE_LABEL, targets, 2, replace(OPTIONS, class_weights="balanced")).weights
    assert weights.tolist() == [10 / 16, 10 / 4]


def test_rare_classes_are_found_when_they_weigh_more():
    generator = torch.Generator().manual_seed(0)
    targets = (torch.arange(400) % 20 == 0).long()
    data = Examples(torch.randn(400, 4, generator=generator) + 1.2 * targets[:, None], targets)

    def recall(kind: str) -> float:
        head = train_head(data, data, 2, replace(OPTIONS, class_weights=kind, hidden_dim=())).head
        with torch.no_grad():
            return float((head(data.features).argmax(1)[targets == 1] == 1).float().mean())

    assert recall("balanced") > recall("none") + 0.1


def test_values_come_in_the_units_of_the_data_even_if_one_never_changes():
    data = blobs(150, 0, REGRESSION)
    still = Examples(data.features, torch.cat([data.targets, torch.full((150, 1), 7.0)], 1))
    head = train_head(still, still, 3, OPTIONS, task=REGRESSION).head
    with torch.no_grad():
        values = head(still.features)
    assert abs(values[:, 0].mean() - data.targets[:, 0].mean()) < 5
    torch.testing.assert_close(values[:, 2], still.targets[:, 2], atol=0.5, rtol=0)


def test_exploding_loss_and_damaged_features_are_named():
    wild = Examples(blobs(60, 0).features * 1e30, blobs(60, 0).targets)
    with pytest.raises(DatasetError, match=r"epoch \d, batch \d: the loss became .* Lower the learning rate"):
        train_head(wild, wild, 3, TrainingOptions(epochs=5, learning_rate=1e30))
    damaged = blobs(60, 0)
    damaged.features[17, 3] = float("nan")
    with pytest.raises(DatasetError, match=r"epoch 1, batch \d: the features of example 17 are not finite"):
        train_head(damaged, damaged, 3, OPTIONS)


def test_nothing_to_learn_from():
    with pytest.raises(DatasetError, match="no examples"):
        train_head(Examples(torch.empty(0, 10), torch.empty(0, dtype=torch.long)), blobs(30, 1), 3, OPTIONS)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("after", [1, 7, 23, 29])
def test_a_resumed_training_gives_the_same_head(task: str, after: int, tmp_path: Path):
    used = replace(OPTIONS, dropout=0.3, optimizer="adamw", schedule="cosine")
    whole = trained(task, used)
    checkpoints = Checkpoints(tmp_path / "c", "me")

    def stop(state: TrainingState) -> None:
        checkpoints.keep(state)
        if len(state.history) == after:
            checkpoints.write()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(task, used, keep=stop)
    resumed = trained(task, used, resume=checkpoints.read())
    assert same(resumed.head, whole.head)
    assert (resumed.history, resumed.best) == (whole.history, whole.best)


def test_early_stopping_survives_a_break():
    used = replace(OPTIONS, patience=4, epochs=100)
    kept: list[TrainingState] = []
    whole = trained(used=used, keep=kept.append)
    resumed = trained(used=used, resume=kept[len(kept) // 2])
    assert same(resumed.head, whole.head)
    assert resumed.history == whole.history


def test_checkpoints_of_other_data_or_options_are_refused(tmp_path: Path):
    train, validation = blobs(30, 0), blobs(30, 1)
    owner = fingerprint(train, validation, OPTIONS, SINGLE_LABEL)
    others = [
        fingerprint(blobs(30, 2), validation, OPTIONS, SINGLE_LABEL),
        fingerprint(train, validation, replace(OPTIONS, seed=1), SINGLE_LABEL),
    ]
    assert len({owner, *others}) == 3
    checkpoints = Checkpoints(tmp_path / "c", owner)
    assert checkpoints.read() is None
    assert not checkpoints.write()
    trained(keep=checkpoints.keep)
    assert checkpoints.write()
    with pytest.raises(HeadError, match="other data or options"):
        Checkpoints(tmp_path / "c", others[0]).read()
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:500])
    with pytest.raises(HeadError, match="damaged"):
        checkpoints.read()


def test_a_sweep_finds_options_that_learn():
    shown: list[object] = []
    used = replace(OPTIONS, epochs=8, learning_rate=1e-9)
    trials = sweep(blobs(90, 0), blobs(60, 1), 3, used, report=shown.append)
    assert len(trials) == len(shown) == trials_count()
    assert trials[0].best.val_loss == min(trial.best.val_loss for trial in trials)
    assert trials[0].best.val_score > 0.9
    again = train_head(blobs(90, 0), blobs(60, 1), 3, trials[0].options)
    assert again.best == trials[0].best
