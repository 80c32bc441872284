"""`clip-train --train-projection`: the projection moves towards the words, as far as images say and shots allow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from clip_export.commands.export import main as export
from clip_export.commands.train import main as train
from clip_export.encoders.image import Encoder
from clip_export.heads.files import load_head
from clip_export.heads.zero_shot import ZeroShot, words_head
from clip_export.training.epochs import Examples
from clip_export.training.objective import score
from clip_export.training.options import TrainingOptions
from clip_export.training.projection import EPOCHS, before_projection, project, train_projection
from clip_toolkit.commands.infer import main as infer
from clip_toolkit.errors import EncoderError
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import SINGLE_LABEL
from tiny_models import TINY_CLIP

CLASSES, WIDTH, DIM = 5, 24, 16
PROJECTION = "visual_projection.weight"


@pytest.fixture(scope="module")
def words() -> ZeroShot:
    directions = torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(1))
    return ZeroShot(functional.normalize(directions, dim=1), 20.0, 0.0, SINGLE_LABEL)


@pytest.fixture(scope="module")
def projection() -> nn.Linear:
    layer = nn.Linear(WIDTH, DIM, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(DIM, WIDTH, generator=torch.Generator().manual_seed(2)) / WIDTH**0.5)
    return layer


@pytest.fixture(scope="module")
def sides(words: ZeroShot, projection: nn.Linear) -> tuple[Examples, Examples, Examples]:
    """Pooled features that the projection sends near the words, but for a part that it gets wrong."""
    generator = torch.Generator().manual_seed(3)
    middle = words.directions @ torch.linalg.pinv(projection.weight.detach()).T
    middle = 3 * functional.normalize(middle, dim=1) + 0.8 * torch.randn(CLASSES, WIDTH, generator=generator)

    def examples(each: int) -> Examples:
        targets = torch.arange(CLASSES).repeat(each)
        return Examples(middle[targets] + 0.4 * torch.randn(len(targets), WIDTH, generator=generator), targets)

    return examples(4), examples(4), examples(60)


def accuracy(words: ZeroShot, projection: nn.Linear, examples: Examples) -> float:
    with torch.no_grad():
        return score(words_head(words)(project(projection, examples).features), examples.targets, SINGLE_LABEL)


def test_images_move_the_projection_and_lambda_holds_it(
    words: ZeroShot, projection: nn.Linear, sides: tuple[Examples, Examples, Examples]
):
    learnt, chosen_by, judged_by = sides
    before = projection.weight.detach().clone()

    def moved(shots: float) -> float:
        tried = train_projection(words, projection, learnt, chosen_by, TrainingOptions(), shots=shots)
        assert accuracy(words, tried.projection, judged_by) >= accuracy(words, projection, judged_by)
        return float((tried.projection.weight - before).norm())

    assert moved(1e-3) < 0.5 * moved(4)
    assert torch.equal(projection.weight, before)
    tried = train_projection(words, projection, learnt, chosen_by, TrainingOptions(), shots=4)
    assert accuracy(words, tried.projection, judged_by) > accuracy(words, projection, judged_by) + 0.02


def test_the_epochs_are_fixed_and_their_figures_those_of_the_projection(
    words: ZeroShot, projection: nn.Linear, sides: tuple[Examples, Examples, Examples]
):
    learnt, chosen_by, _ = sides
    misleading = chosen_by._replace(targets=chosen_by.targets.roll(1))
    tried = train_projection(words, projection, learnt, misleading, TrainingOptions(), shots=4)
    training = tried.attempt.training
    assert training.best.number == len(training.history) == EPOCHS
    with torch.no_grad():
        logits = training.head(project(tried.projection, misleading).features)
    loss = functional.cross_entropy(logits, misleading.targets).item()
    assert loss == pytest.approx(training.best.val_loss, rel=1e-4)
    assert not tried.projection.weight.requires_grad


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawings of shapes, two of which have a name that tiny-clip does not know."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    draw = [sys.executable, str(TINY_CLIP.parent / "draw.py"), str(folder), "--per-class", "20", "--seed", "6"]
    subprocess.run([*draw, "--classes", "circle", "heart", "star"], check=True, capture_output=True)
    (folder / "circle").rename(folder / "disc")
    (folder / "star").rename(folder / "yellow_star")
    return folder


def test_a_trained_projection_is_saved_with_its_encoder_exported_and_run(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Heads that hardly learn leave the field to the projection."""
    head, model = tmp_path / "head.pt", tmp_path / "model.onnx"
    arguments = [str(photos), "--encoder", str(TINY_CLIP), "--cache", str(tmp_path / "cache"), "-o", str(head)]
    start = ["--init", "zero-shot", "--train-projection", "--shots", "4"]
    assert train([*arguments, *start, "--epochs", "1", "--lr", "1e-5"]) == 0
    printed = capsys.readouterr().out
    assert "validation loss by start: zero-shot, trained projection " in printed
    assert "; random " in printed
    assert "trained the visual projection, 300 epochs: " in printed
    trained = load_head(head)
    assert trained.training["start"] == "zero-shot, trained projection"
    assert (trained.training["trained part"], trained.training["learning rate"]) == ("visual projection", 1e-3)
    before, after = (
        load_file(folder / "model.safetensors") for folder in (TINY_CLIP, tmp_path / trained.encoder.folder)
    )
    assert [name for name, value in after.items() if not torch.equal(value, before[name].float())] == [PROJECTION]
    assert export(["--head", str(head), "-o", str(model)]) == 0
    assert read_spec(model).labels == ("disc", "heart", "yellow_star")
    assert infer(["--selftest", str(model)]) == 0
    capsys.readouterr()
    assert infer([*map(str, sorted((photos / "disc").iterdir())), "--model", str(model), "--top-k", "1"]) == 0
    assert capsys.readouterr().out.count("disc  ") >= 16
    # the features before the projection are those of any head on the pooled feature
    assert train([*arguments, "--feature", "pooled", "--epochs", "1"]) == 0
    assert "features: 0 computed" in capsys.readouterr().out


def test_a_start_that_is_better_leaves_the_encoder_as_it_was(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    head = tmp_path / "head.pt"
    arguments = [str(photos), "--encoder", str(TINY_CLIP), "--no-cache", "-o", str(head), "--pull", "0.1"]
    assert train([*arguments, "--init", "zero-shot", "--train-projection", "--shots", "12"]) == 0
    printed = capsys.readouterr().out
    assert "; zero-shot, trained projection " in printed
    assert "zero-shot from the words alone" in printed
    assert load_head(head).encoder.folder is None
    assert [path.name for path in tmp_path.iterdir()] == ["head.pt"]


@pytest.mark.parametrize("family", ["siglip", "blip-retrieval"])
def test_encoders_without_a_projection_of_the_pooled_feature_are_refused(
    family: str, checkpoint: Callable[[str], Path]
):
    encoder = Encoder.from_pretrained(str(checkpoint(family)), feature="projected")
    with pytest.raises(EncoderError, match="Leave out --train-projection"):
        before_projection(encoder)
