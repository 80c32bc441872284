"""What ``clip-train`` says of a head: the same figures everywhere, each beside what it compares with."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from clip_export.commands.train_options import parse_args
from clip_export.commands.train_results import WORDS, show_kept_epoch, show_results
from clip_export.heads.files import TrainedHead, load_head
from clip_export.heads.mlp import VLMtoMLP
from clip_export.training.epochs import Epoch
from clip_export.training.judging.decisions import Decisions
from clip_export.training.judging.outcome import Judgement, Outcome
from clip_export.training.loop import Training
from clip_export.training.options import TrainingOptions
from clip_toolkit.judging.figures import Interval
from clip_toolkit.spec.model_file import read_spec
from commands_in_process import Done, run

LEARNING = ("--lr", "1e-2", "--epochs", 12, "--no-cache")


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures, a fifth of which are ill: brighter than the others, but not by much."""
    folder, rng = tmp_path_factory.mktemp("rare"), np.random.default_rng(3)
    for number in range(100):
        ill = number % 5 == 0
        path = folder / ("ill" if ill else "well") / f"case{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        light = rng.normal(140 if ill else 110, 25)
        Image.fromarray(rng.normal(light, 30, (32, 32, 3)).clip(0, 255).astype(np.uint8)).save(path)
    return folder


class Judged(NamedTuple):
    """A training of a normalising head with an operating point: its folder, what it said, and how it predicts."""

    folder: Path
    done: Done
    rows: list[dict[str, str]]


@pytest.fixture(scope="module")
def judged(rare: Path, checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Judged:
    folder = tmp_path_factory.mktemp("judged")
    point = ("--operating-point", "sensitivity=0.95", "--positive", "ill", "--test-fraction", 0.4)
    options = ("--encoder", checkpoint("clip"), *LEARNING, "--feature-norm", "l2", *point, "--report", "report")
    done = run("clip-train", rare, *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert run("clip-export", "--head", "head.pt", cwd=folder).returncode == 0
    table = csv.DictReader(io.StringIO((folder / "report" / "predictions.csv").read_text(encoding="utf-8")))
    return Judged(folder, done, [row for row in table if row["side"] == "test"])


def rates(true: list[str], said: list[str]) -> tuple[str, str, str]:
    """Accuracy, sensitivity and specificity for ill, as they are shown."""
    right, ill = np.array(true) == np.array(said), np.array(true) == "ill"
    return f"{right.mean():.1%}", f"{right[ill].mean():.1%}", f"{right[~ill].mean():.1%}"


def test_every_place_tells_the_figures_of_the_operating_point(rare: Path, judged: Judged):
    pytest.importorskip("matplotlib", reason="needs the report extra")
    folder, done, rows = judged
    images = [rare / row["path"] for row in rows]
    table = run("clip-infer", *images, "--format", "csv", cwd=folder).stdout
    said = [row["label"] for row in csv.DictReader(io.StringIO(table))]
    true = [row["true"] for row in rows]
    accuracy, sensitivity, specificity = rates(true, said)
    assert said == [row["predicted"] for row in rows]
    probable = [max(("ill", "well"), key=lambda label: float(row[f"p:{label}"])) for row in rows]
    assert rates(true, probable) != (accuracy, sensitivity, specificity)  # the threshold does decide otherwise

    described = run("clip-infer", "--describe", cwd=folder).stdout
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    interval = r"\(95% interval [\d.]+% to [\d.]+%\)"
    both = rf"sensitivity {sensitivity} \(.*?\), specificity {specificity} \("
    assert re.search(rf"test accuracy {accuracy} {interval} on 40 images", done.stdout)
    assert re.search(rf"threshold 0\.\d+ for ill: {both}", done.stdout)
    assert re.search(rf"test accuracy +{accuracy} {interval} on 40 images", described)
    assert re.search(rf"test, ill +{both}", described)
    assert re.search(rf"Accuracy {accuracy} {interval}, test<", page)
    assert re.search(rf"sensitivity for ill {sensitivity} .*\n?.*specificity for ill {specificity} ", page)


def test_the_baseline_is_held_to_the_same_operating_point(judged: Judged):
    found = r"([\d.]+%), sensitivity ([\d.]+%), specificity ([\d.]+%)"
    told = re.search(rf"logistic regression on the same features: {found}", judged.done.stdout)
    assert told is not None
    figures = told.groups()
    assert float(figures[1].rstrip("%")) > 50  # the most probable label of so rare an illness would find hardly any
    training = load_head(judged.folder / "head.pt").training
    assert training["test, logistic regression"] == told[0].partition(": ")[2]
    page = (judged.folder / "report" / "report.html").read_text(encoding="utf-8")
    assert f"logistic regression on the same features, its threshold chosen by the same rule: {figures[0]}" in page


def test_a_normalising_head_is_remembered_and_exported(judged: Judged):
    assert load_head(judged.folder / "head.pt").module.spec.feature_norm
    assert read_spec(judged.folder / "model.onnx").head.feature_norm


def test_the_file_tells_validation_and_test_figures_and_the_epoch(judged: Judged):
    training = load_head(judged.folder / "head.pt").training
    assert training["operating point"] == "sensitivity=0.95"
    assert re.fullmatch(r"[\d.]+% \(95% interval .*\) on 20 images", training["validation accuracy"])
    assert re.fullmatch(r"\d+ of 12", training["epoch"])
    assert f"kept epoch {training['epoch']}, that of the lowest validation loss\n" in judged.done.stdout


def history(*losses: float) -> tuple[Epoch, ...]:
    return tuple(Epoch(number, 1.0, 0.5, loss, 0.5) for number, loss in enumerate(losses, 1))


@pytest.mark.parametrize(
    ("losses", "options", "kept", "hint"),
    [
        ([*range(20, 0, -1)], TrainingOptions(), "kept epoch 20 of 20, that of the lowest validation loss", None),
        ([3, 1, *range(2, 20)], TrainingOptions(), "kept epoch 2 of 20, that of", "more --dropout or --weight-decay"),
        ([3, 1, *range(2, 20)], TrainingOptions(hidden_dim=()), "kept epoch 2 of 20", "try more --weight-decay"),
        (
            [3, 1, *range(2, 20)],
            TrainingOptions(keep_last=True),
            "kept epoch 20 of 20, the last",
            "leave out --keep-last",
        ),
        ([3, 1, *range(2, 20)], TrainingOptions(patience=18), "kept epoch 2 of 20, that of", None),
    ],
)
def test_the_kept_epoch_is_told_and_one_long_before_the_end_is_a_hint(
    losses: list[float], options: TrainingOptions, kept: str, hint: str | None, capsys: pytest.CaptureFixture[str]
):
    epochs = history(*losses)
    best = epochs[-1] if options.keep_last else min(epochs, key=lambda epoch: epoch.val_loss)
    show_kept_epoch(Training(VLMtoMLP(4, 2, 2), epochs, best), options)
    told = capsys.readouterr()
    assert told.out.startswith(kept)
    assert ("hint: validation loss was lowest at epoch 2 of 20" in told.err) == (hint is not None)
    assert (hint or "") in told.err


@pytest.mark.parametrize(
    ("name", "score", "options", "hint"),
    [
        ("logistic regression", 0.9, (), "80.0%: try --standardise with --lr 1e-3, or --sweep"),
        ("logistic regression", 0.9, ("--feature-norm", "l2"), "80.0%: try --sweep, or take the simpler model"),
        ("logistic regression", 0.9, ("--init", "zero-shot"), "80.0%: try more images, or a head without --init"),
        (WORDS, 0.9, ("--init", "zero-shot"), "80.0%: add images, or export the words"),
        ("logistic regression", 0.8, (), None),
    ],
)
def test_a_better_baseline_is_a_hint(
    name: str, score: float, options: tuple[str, ...], hint: str | None, capsys: pytest.CaptureFixture[str]
):
    own, other = (Outcome("test", 10, Interval(value, 0, 1), ()) for value in (0.8, score))
    head = TrainedHead(VLMtoMLP(4, 2, 2), labels=("a", "b"))
    command = parse_args(["data", "--encoder", "e", *options])
    show_results(command, head, Judgement(Decisions(1, {}), 0.9, own, own, {name: other}), None)
    told = capsys.readouterr()
    assert f"{name} on the same features: {score:.1%}" in told.out
    assert (f"hint: {name} is right more often than the head, 90.0% against {hint}" in told.err) == (hint is not None)
