"""`clip-train --init zero-shot`: words start the head where they help, and never hurt it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from clip_export.commands.export import main as export
from clip_export.commands.train import main as train
from clip_export.commands.train_options import parse_args
from clip_export.heads.files import load_head
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.zero_shot import ZeroShot
from clip_export.training.epochs import Examples
from clip_export.training.few_shot import train_from_words
from clip_export.training.loop import Training, train_head
from clip_export.training.objective import score
from clip_export.training.options import TrainingOptions
from clip_toolkit.commands.infer import main as infer
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import MULTI_LABEL, SINGLE_LABEL
from tiny_models import TINY_CLIP

CLASSES, DIM = 6, 32
OPTIONS = TrainingOptions(learning_rate=1e-2, epochs=40)


@pytest.fixture(scope="module")
def directions() -> torch.Tensor:
    """Where the classes really lie."""
    return functional.normalize(torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(1)), dim=1)


@pytest.fixture(scope="module")
def sides(directions: torch.Tensor) -> tuple[Examples, Examples, Examples]:
    """Noisy features of any length: one a class to learn from, five to choose by, a hundred to judge by."""
    generator = torch.Generator().manual_seed(2)

    def examples(each: int) -> Examples:
        targets = torch.arange(CLASSES).repeat(each)
        noisy = directions[targets] + 0.25 * torch.randn(len(targets), DIM, generator=generator)
        return Examples(noisy * (1 + 9 * torch.rand(len(targets), 1, generator=generator)), targets)

    return examples(1), examples(5), examples(100)


def trainings(*arguments: object, **options: object) -> list[Training]:
    return [attempt.training for attempt in train_from_words(*arguments, **options)]


def accuracy(head: VLMtoMLP, examples: Examples) -> float:
    with torch.no_grad():
        return score(head(examples.features), examples.targets, SINGLE_LABEL)


def test_good_words_are_kept_and_help(directions: torch.Tensor, sides: tuple[Examples, Examples, Examples]):
    learnt, chosen_by, judged_by = sides
    trained = trainings(ZeroShot(directions, 30.0, 0.0, SINGLE_LABEL), learnt, chosen_by, OPTIONS)
    (random,) = (each for each in trained if each.start == "random")
    assert trained[0].start.startswith("zero-shot, pull ")
    assert accuracy(trained[0].head, judged_by) > accuracy(random.head, judged_by) + 0.1


def test_wrong_words_are_left(directions: torch.Tensor, sides: tuple[Examples, Examples, Examples]):
    _, many, judged_by = sides
    wrong = ZeroShot(directions.roll(1, 0), 30.0, 0.0, SINGLE_LABEL)
    trained = trainings(wrong, many, sides[0], OPTIONS, pulls=[10.0])
    assert [each.start for each in trained] == ["random", "zero-shot, pull 10"]
    assert accuracy(trained[0].head, judged_by) > accuracy(trained[1].head, judged_by)


def test_the_heads_take_plain_features_of_any_length(
    directions: torch.Tensor, sides: tuple[Examples, Examples, Examples]
):
    learnt, chosen_by, judged_by = sides
    words = ZeroShot(directions, 30.0, 0.0, SINGLE_LABEL)
    for training in trainings(words, learnt, chosen_by, OPTIONS, pulls=[1.0]):
        assert training.head.spec.feature_norm
        with torch.no_grad():
            short, long = (training.head(judged_by.features * factor) for factor in (1, 100))
            loss = functional.cross_entropy(training.head(chosen_by.features), chosen_by.targets)
        assert torch.allclose(short, long, atol=1e-3)
        assert loss.item() == pytest.approx(training.best.val_loss, abs=1e-4)


def test_words_win_a_draw(directions: torch.Tensor):
    """Both starts get the only validation example right beyond any doubt."""
    learnt = Examples(directions.repeat(20, 1), torch.arange(CLASSES).repeat(20))
    sure = Examples(directions[:1], torch.tensor([0]))
    words = ZeroShot(directions, 100.0, 0.0, SINGLE_LABEL)
    attempts = train_from_words(words, learnt, sure, OPTIONS)
    assert {attempt.loss for attempt in attempts} == {0.0}
    assert [attempt.training.start for attempt in attempts][-1] == "random"


def test_a_pull_holds_the_start_and_none_lets_it_go(sides: tuple[Examples, Examples, Examples]):
    learnt, chosen_by, _ = sides
    start = VLMtoMLP(DIM, (), CLASSES)
    before = start.layers[0].weight.detach().clone()

    def moved(pull: float) -> float:
        options = TrainingOptions(learning_rate=1e-2, hidden_dim=(), keep_last=True)
        head = train_head(learnt, chosen_by, CLASSES, options, start=start, pull=pull).head
        return float((head.layers[0].weight - before).detach().norm())

    assert moved(1000.0) < 0.1 * moved(1.0) < 0.1 * moved(0.0)
    assert torch.equal(start.layers[0].weight, before)


def test_sigmoids_start_with_their_bias(directions: torch.Tensor):
    features = directions.repeat(4, 1)
    examples = Examples(features, torch.eye(CLASSES).repeat(4, 1))
    words = ZeroShot(directions, 20.0, -10.0, MULTI_LABEL)
    options = replace(OPTIONS, keep_last=True)
    trained = trainings(words, examples, examples, options, task=MULTI_LABEL, pulls=[1e4])
    (held,) = (each for each in trained if each.start == "zero-shot, pull 10000")
    with torch.no_grad():
        assert torch.allclose(held.head(features), 20 * features @ directions.T - 10, atol=0.5)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight drawings each of three shapes."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    draw = [sys.executable, str(TINY_CLIP.parent / "draw.py"), str(folder), "--per-class", "8", "--seed", "5"]
    subprocess.run([*draw, "--classes", "circle", "heart", "star"], check=True, capture_output=True)
    (folder / "star").rename(folder / "yellow_star")
    return folder


def test_one_shot_to_the_exported_file(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    head, model = tmp_path / "head.pt", tmp_path / "model.onnx"
    arguments = [str(photos), "--encoder", str(TINY_CLIP), "--no-cache", "-o", str(head)]
    assert train([*arguments, "--init", "zero-shot", "--shots", "1", "--templates", "a {}", "a photo of a {}"]) == 0
    printed = capsys.readouterr().out
    assert "validation loss by start: zero-shot, pull " in printed
    assert "random " in printed
    trained = load_head(head)
    assert trained.module.spec.layers == (64, 3)
    assert trained.encoder.feature == "projected"
    assert trained.training["start"].startswith("zero-shot, pull ")
    assert trained.training["templates"] == ["a {}", "a photo of a {}"]
    assert export(["--head", str(head), "-o", str(model)]) == 0
    assert read_spec(model).labels == ("circle", "heart", "yellow_star")
    capsys.readouterr()
    assert infer([str(next((photos / "heart").iterdir())), "--model", str(model), "--top-k", "1"]) == 0
    assert "heart" in capsys.readouterr().out


def test_a_softmax_encoder_starts_no_multi_label_head(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [f"{path},{path.parent.name}" for path in sorted(photos.rglob("*.*"))]
    (tmp_path / "data.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    arguments = [str(tmp_path / "data.csv"), "--task", "multi-label", "--encoder", str(TINY_CLIP)]
    assert train([*arguments, "--init", "zero-shot", "-o", str(tmp_path / "head.pt")]) == 1
    assert "Use a SigLIP encoder" in capsys.readouterr().err


def test_an_encoder_without_text_is_refused_before_any_image_is_encoded(
    photos: Path, checkpoint: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [str(photos), "--encoder", str(checkpoint("blip")), "-o", str(tmp_path / "head.pt")]
    assert train([*arguments, "--init", "zero-shot"]) == 1
    said = capsys.readouterr()
    assert "has no text tower" in said.err
    assert "features" not in said.out


@pytest.mark.parametrize(
    "options",
    [
        ["--templates", "a {}"],
        ["--pull", "1"],
        ["--init", "zero-shot", "--pull", "-1"],
        ["--init", "zero-shot", "--hidden-dim", "8"],
        ["--init", "zero-shot", "--feature", "pooled"],
        ["--init", "zero-shot", "--task", "regression"],
        ["--init", "zero-shot", "--standardise"],
        ["--init", "zero-shot", "--sweep"],
        ["--init", "zero-shot", "--resume"],
        ["--train-projection"],
        ["--init", "zero-shot", "--train-projection", "--feature", "pooled"],
        ["--init", "zero-shot", "--train-projection", "--input-size", "32"],
        ["--init", "zero-shot", "--train-projection", "--task", "multi-label"],
        ["--init", "zero-shot", "--train-projection", "--unfreeze", "1"],
    ],
)
def test_options_that_do_not_go_together(options: list[str]):
    with pytest.raises(SystemExit) as stopped:
        parse_args(["photos", "--encoder", "x", *options])
    assert stopped.value.code == 2


def test_the_start_has_a_learning_rate_of_its_own():
    assert parse_args(["photos", "--encoder", "x"]).training.learning_rate == 1e-4
    assert parse_args(["photos", "--encoder", "x", "--init", "zero-shot"]).training.learning_rate == 1e-2
    assert parse_args(["photos", "--encoder", "x", "--init", "zero-shot", "--lr", "0.5"]).training.learning_rate == 0.5
