"""clip-train with a learnt pooling: the head file, the proved model file, and what happens where it does not help."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from clip_export.commands.train_options import parse_args
from clip_export.encoders.image import Encoder
from clip_export.heads.files import load_head, save_head
from clip_export.heads.pooling import with_pooling
from clip_export.heads.tuned_encoder import referenced_encoder
from clip_export.training.finetuning import finetune as finetuning
from clip_toolkit import load
from clip_toolkit.errors import HeadError
from clip_toolkit.spec.model_file import read_spec
from commands_in_process import classified, failed, run, train
from tiny_models import TINY_CLIP

FEATURE = ("--feature", "class+attention@2")
QUICK = (*FEATURE, "--epochs", 20, "--lr", "3e-3")


@pytest.fixture(scope="module")
def haystacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a red square or disc among others that are not red: a mean of the patches hardly shows it."""
    folder = tmp_path_factory.mktemp("haystacks")
    rng = np.random.default_rng(9)
    for number in range(100):
        label = ("square", "disc")[number % 2]
        image = Image.new("RGB", (64, 64), tuple(rng.integers(90, 160, 3).tolist()))
        draw = ImageDraw.Draw(image)
        shapes = [draw.rectangle, draw.ellipse]
        for rank, cell in enumerate(rng.permutation(16)[:10]):
            x, y = 16 * (cell % 4), 16 * (cell // 4)
            other = (int(rng.integers(0, 60)), *rng.integers(60, 250, 2).tolist())
            shape = shapes[number % 2] if rank == 0 else shapes[rng.integers(2)]
            shape((x + 3, y + 3, x + 12, y + 12), fill=other if rank else (250, 30, 30))
        (folder / label).mkdir(exist_ok=True)
        image.save(folder / label / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def pooled(haystacks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a pooling was learnt."""
    folder = tmp_path_factory.mktemp("pooled")
    done = train(haystacks, *QUICK, "--novelty", "0.05", cwd=folder)
    (folder / "said").write_text(done.stdout, encoding="utf-8")
    return folder


@pytest.mark.transformers
def test_from_folder_to_runtime(haystacks: Path, pooled: Path):
    said = (pooled / "said").read_text(encoding="utf-8")
    assert "hidden states after block 2: 100 computed, 0 from the cache" in said
    assert "learnt pooling, epoch " in said
    assert "with class+mean@2 " in said
    head = load_head(pooled / "head.pt")
    assert head.pooling.shape == (128,)
    assert head.pooling.abs().min() > 0
    assert head.encoder.revision == head.training["encoder revision"] == Encoder.from_pretrained(TINY_CLIP).revision
    records = classified(pooled, *sorted(haystacks.rglob("*.png")))
    right = np.mean([item["label"] == Path(item["image"]).parent.name for item in records])
    said = [float(head.training[f"{side} accuracy"].partition("%")[0]) / 100 for side in ("train", "validation")]
    assert right == pytest.approx(0.8 * said[0] + 0.2 * said[1], abs=0.011)
    spec = read_spec(pooled / "model.onnx")
    assert spec.encoder.feature == "class+attention@2"
    assert spec.encoder.revision != head.encoder.revision  # an index of the plain encoder's is another one
    assert spec.parity.pillow.logits <= 1e-4 * spec.parity.logit_scale
    assert load(pooled / "model.onnx").predict(next(haystacks.rglob("*.png"))).novelty is not None


def test_the_quantized_file_decides_the_same_and_explains(pooled: Path):
    done = run("clip-export", "--head", "head.pt", "-o", "s.onnx", "--quantize", "int8", "--explain", cwd=pooled)
    assert done.returncode == 0, done.stderr
    assert read_spec(pooled / "s.onnx").quantization.agreement >= 0.99
    assert run("clip-infer", "--selftest", "s.onnx", cwd=pooled).returncode == 0


@pytest.mark.transformers
def test_a_pooling_fits_its_own_feature_alone(pooled: Path):
    path = pooled / "head.pt"
    head = load_head(path)
    for feature in ("class+attention@3", "class+mean@2"):
        with pytest.raises(HeadError, match=r"has learnt its pooling for class\+attention@2, not for"):
            with_pooling(referenced_encoder(path, head.encoder, feature=feature), head)
    encoder = referenced_encoder(path, head.encoder)
    with pytest.raises(HeadError, match=r"no head holds a learnt pooling for the class\+attention@2 feature"):
        with_pooling(encoder, replace(head, pooling=None))
    with pytest.raises(HeadError, match=r"of shape \[3\], expected \[128\]"):
        with_pooling(encoder, replace(head, pooling=torch.ones(3)))
    save_head(head, pooled / "again.safetensors")
    assert torch.equal(load_head(pooled / "again.safetensors").pooling, head.pooling)


def test_an_interrupted_training_ends_with_the_same_head(
    haystacks: Path, pooled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    epoch = finetuning.Run.epoch

    def interrupted(run: finetuning.Run, *sides: object) -> object:
        if run.history[-1].number == 3:
            raise KeyboardInterrupt
        return epoch(run, *sides)

    monkeypatch.setattr(
        finetuning.Run, "epoch", lambda run, *sides: (interrupted if is_pooling(run) else epoch)(run, *sides)
    )
    command = ("clip-train", haystacks, *QUICK, "--encoder", TINY_CLIP)
    assert run(*command, cwd=tmp_path).returncode == 130
    monkeypatch.undo()
    done = run(*command, "--resume", cwd=tmp_path)
    assert "pooling: resuming after epoch 3" in done.stderr
    assert torch.equal(load_head(tmp_path / "head.pt").pooling, load_head(pooled / "head.pt").pooling)
    assert [path.name for path in tmp_path.iterdir()] == ["head.pt"]


def is_pooling(run: finetuning.Run) -> bool:
    return bool(run.history) and run.history[0].number == 0


def test_the_mean_stays_where_it_was_better(haystacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(finetuning, "improvement", lambda history: history[0])
    done = train(haystacks, *FEATURE, "--epochs", 3, cwd=tmp_path)
    assert "nothing better on the validation images: class+mean@2 and its head are kept" in done.stderr
    head = load_head(tmp_path / "head.pt")
    assert (head.encoder.feature, head.pooling) == ("class+mean@2", None)
    assert run("clip-export", "--head", "head.pt", cwd=tmp_path).returncode == 0


def test_beside_a_text_with_views_and_a_report(haystacks: Path, tmp_path: Path):
    with (tmp_path / "data.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "note"))
        for number, path in enumerate(sorted(haystacks.rglob("*.png"))):
            rows.writerow((path, path.parent.name, ("one", "two", "three")[number % 3]))
    done = train(
        "data.csv", "--text-column", "note", *QUICK, "--augment", 1, "--no-cache", "--report", "report", cwd=tmp_path
    )
    assert "hidden states after block 2: 180 computed" in done.stdout
    assert "image alone" in done.stdout
    head = load_head(tmp_path / "head.pt")
    assert head.pooling is not None
    exported = run("clip-export", "--head", "head.pt", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert "class+attention@2 feature" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("photos", "--unfreeze", "2"), "--unfreeze does not go with --feature class+attention@2"),
        (("features.parquet",), "--feature class+attention@2 needs images or their encoder"),
    ],
)
def test_usage(capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str):
    with pytest.raises(SystemExit) as stopped:
        parse_args([*FEATURE, "--encoder", "x", *options])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_disk_that_is_too_small(haystacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2**10})())
    said = failed(haystacks, *FEATURE, "--epochs", 1, "--no-cache", cwd=tmp_path)
    assert "0.0 GiB of hidden states are to be kept here" in said
    assert "Name another disk with --cache" in said


def test_a_notebooks_head_has_none_nor_an_encoder_alone(tmp_path: Path):
    torch.save({"0.weight": torch.zeros(2, 256), "0.bias": torch.zeros(2)}, tmp_path / "n.pt")
    options = ("--head", "n.pt", "--encoder", TINY_CLIP, "--labels", "a", "b", *FEATURE)
    done = run("clip-export", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert "no head holds a learnt pooling for the class+attention@2 feature" in done.stderr
    done = run("clip-export", "--encoder-only", "--encoder", TINY_CLIP, *FEATURE, cwd=tmp_path)
    assert "or use --feature class+mean@2" in done.stderr
