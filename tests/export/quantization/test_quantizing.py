"""`clip-export --quantize`: the file decides as the float one does, says so, or does not appear."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import clip_toolkit
from clip_export.commands.export import main as export
from clip_export.commands.train import main as train
from clip_export.encoders.image import Encoder
from clip_export.features.images import image_features
from clip_export.heads.files import TrainedHead, load_head, save_head
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.references import DataReference, EncoderReference
from clip_export.quantization import quantizing, targets
from clip_export.quantization.evidence.gate import Decisions
from clip_export.quantization.layers.linears import with_constants
from clip_export.quantization.quantizing import Attempt, QuantizationOptions, refusal
from clip_export.quantization.request import MODES
from clip_export.samples.pictures import picture
from clip_export.training.epochs import Examples
from clip_export.training.loop import train_head
from clip_export.training.options import TrainingOptions
from clip_toolkit.commands.infer import main as infer
from clip_toolkit.runtime import processor
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import SINGLE_LABEL

CLASSES = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 210)}
SIZE = 40

EncoderOf = Callable[..., Encoder]


def tinted(name: str, seed: int) -> Image.Image:
    """A picture in which one colour prevails."""
    return Image.blend(
        picture(SIZE, SIZE + seed % 9, seed), Image.new("RGB", (SIZE + seed % 9, SIZE), CLASSES[name]), 0.5
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of each class."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(40):
            tinted(name, 100 * number + i).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def head_file(encoder: EncoderOf, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A head trained on those pictures behind a tiny encoder; every fourth picture is held out."""

    @functools.cache
    def make(name: str, feature: str = "pooled") -> Path:
        used = encoder(name, feature)
        files = sorted(photos.rglob("*.png"))
        kept = [path for i, path in enumerate(files) if i % 4]
        features = image_features(used, kept).values
        examples = Examples(features, torch.tensor([list(CLASSES).index(path.parent.name) for path in kept]))
        options = TrainingOptions(epochs=60, learning_rate=1e-2, hidden_dim=16, keep_last=True)
        head = train_head(examples, examples, len(CLASSES), options).head
        held_out = tuple(path.relative_to(photos).as_posix() for path in files[::4])
        path = tmp_path_factory.mktemp("heads") / f"{name}.pt"
        origin = EncoderReference(used.id, feature=feature)
        trained = TrainedHead(head, origin, tuple(CLASSES), {}, DataReference(str(photos), held_out))
        save_head(trained, path)
        return path

    return make


FAMILIES = ["clip", "clip-crop", "siglip", "siglip2", "blip", "blip-retrieval"]


@pytest.mark.parametrize(("name", "feature"), [*((name, "pooled") for name in FAMILIES), ("clip", "class+mean@2")])
def test_every_family_passes_the_gate_in_int8(
    name: str,
    feature: str,
    head_file: Callable[..., Path],
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    model = tmp_path / "model.onnx"
    assert export(["--head", str(head_file(name, feature)), "-o", str(model), "--quantize", "int8"]) == 0
    printed = capsys.readouterr().out
    assert "decides as the float file" in printed
    assert "of float32's size" in printed
    assert printed.index("quantization") < printed.index(
        "parity"
    )  # the numbers of the file that was written come first
    assert re.search(r"\nparity +of the float32 file before quantization, against PyTorch", printed)
    receipt = read_spec(model).quantization
    assert receipt.agreement >= receipt.min_agreement == 0.99
    assert (receipt.calibration_images, receipt.evaluation_images) == (90, 30)
    assert receipt.accuracy_after >= 0.9
    assert len(receipt.tried) >= 10
    assert infer(["--selftest", str(model)]) == 0
    assert infer(["--describe", str(model)]) == 0
    assert f"int8 for {receipt.target}" in capsys.readouterr().out
    assert infer([str(photos / "red" / "0.png"), "--model", str(model), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["label"] == "red"


@pytest.mark.parametrize("name", ["clip", "siglip", "blip"])
@pytest.mark.parametrize("mode", ["int4", "fp16"])
def test_other_modes(name: str, mode: str, head_file: Callable[[str], Path], tmp_path: Path):
    model = tmp_path / "model.onnx"
    assert export(["--head", str(head_file(name)), "-o", str(model), "--quantize", mode]) == 0
    receipt = read_spec(model).quantization
    assert (receipt.mode, receipt.target) == (mode, "any")
    assert receipt.agreement >= 0.99
    graph = onnx.load(model).graph
    assert [item.name for item in graph.input] == ["image"]
    kinds = {item.name: item.type.tensor_type.elem_type for item in (*graph.input, *graph.output)}
    assert kinds == {"image": 2, "probabilities": 1, "logits": 1, "embedding": 1}
    assert infer(["--selftest", str(model)]) == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options", [("--ops", "standard"), ("--input", "pixels"), ("--ops", "standard", "--input", "pixels")]
)
def test_other_inputs_and_operators(
    mode: str, options: tuple[str, ...], head_file: Callable[[str], Path], tmp_path: Path
):
    model = tmp_path / "model.onnx"
    arguments = ["--head", str(head_file("clip")), "-o", str(model), "--quantize", mode, *options]
    assert export(arguments) == 0
    assert infer(["--selftest", str(model)]) == 0
    domains = {node.domain for node in onnx.load(model).graph.node}
    assert domains <= ({""} if "standard" in options else {"", "com.microsoft"})


@pytest.mark.parametrize("target", list(targets.TARGETS))
def test_targets(target: str, head_file: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = tmp_path / "model.onnx"
    arguments = ["--head", str(head_file("clip")), "-o", str(model), "--quantize", "int8", "--target", target]
    if target != "x86" and processor.is_x86() and not processor.has_vnni():
        assert export(arguments) == 1
        assert "Use --target x86" in capsys.readouterr().err
        return
    assert export(arguments) == 0
    receipt = read_spec(model).quantization
    assert receipt.target == target
    assert (receipt.speed_ratio is None) == (not targets.TARGETS[target].is_here)
    weights = [item for item in onnx.load(model).graph.initializer if item.name.endswith("weight_int8")]
    largest = max(int(np.abs(onnx.numpy_helper.to_array(item).astype(int)).max()) for item in weights)
    assert largest == targets.TARGETS[target].largest_weight


def test_head_remembers_its_data_and_the_validation_split_judges(photos: Path, tmp_path: Path, checkpoint):
    head, model = tmp_path / "head.pt", tmp_path / "model.onnx"
    arguments = [
        str(photos),
        "--encoder",
        str(checkpoint("clip")),
        "--out",
        str(head),
        "--epochs",
        "40",
        "--lr",
        "1e-2",
    ]
    assert train(arguments) == 0
    data = load_head(head).data
    assert (data.folder, len(data.digests)) == (str(photos.resolve()), 24)
    assert export(["--head", str(head), "-o", str(model), "--quantize", "int8"]) == 0
    receipt = read_spec(model).quantization
    assert (receipt.calibration_images, receipt.evaluation_images) == (96, 24)


def test_without_images_ranges_are_dynamic_and_drawn_pictures_judge(
    head_file: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    head = load_head(head_file("clip"))
    save_head(replace(head, data=DataReference(str(tmp_path / "gone"), ())), tmp_path / "head.pt")
    model = tmp_path / "model.onnx"
    assert export(["--head", str(tmp_path / "head.pt"), "-o", str(model), "--quantize", "int8"]) == 0
    assert "--calibration" in capsys.readouterr().err
    receipt = read_spec(model).quantization
    assert (receipt.choice, receipt.calibration_images) == ("dynamic ranges", 0)
    assert "drawn" in receipt.source
    assert infer(["--selftest", str(model)]) == 0


def test_refit_trains_the_head_behind_the_quantized_encoder(
    head_file: Callable[[str], Path], photos: Path, tmp_path: Path
):
    model, head = tmp_path / "model.onnx", head_file("clip")
    arguments = ["--head", str(head), "-o", str(model), "--quantize", "int8", "--refit"]
    assert export(arguments) == 0
    receipt = read_spec(model).quantization
    assert receipt.refit_images == 90  # none of those that judge
    before, after = load_head(head).module.layers[0].weight.detach().numpy(), _first_weight(model)
    assert ("head refitted" in receipt.choice) == (not np.array_equal(before, after))
    assert ("head kept" in receipt.choice) == np.array_equal(before, after)
    assert receipt.accuracy_after >= receipt.accuracy_before
    assert export([*arguments, str(photos)]) == 0
    assert read_spec(model).quantization.refit_images == 90


def _first_weight(model: Path) -> np.ndarray:
    (weight,) = (item for item in onnx.load(model).graph.initializer if item.name == "head.layers.0.weight")
    return onnx.numpy_helper.to_array(weight)


def test_a_file_that_decides_otherwise_is_refused(
    encoder: EncoderOf,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    used = encoder("clip")
    head = VLMtoMLP(used.dim, (), 2).eval()

    def damaged(model: onnx.ModelProto, *_: object) -> onnx.ModelProto:
        swapped = {name: np.flip(value.numpy(), 0) for name, value in head.layers.state_dict().items()}
        return with_constants(model, {f"head.layers.{name}": value for name, value in swapped.items()})

    monkeypatch.setattr(quantizing, "quantize_int4", damaged)
    save_head(TrainedHead(head, EncoderReference(used.id), ("a", "b")), tmp_path / "head.pt")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in photos.rglob("*.png"):
        (flat / f"{path.parent.name}{path.name}").write_bytes(path.read_bytes())
    model = tmp_path / "model.onnx"
    model.write_bytes(b"what was here before")
    arguments = ["--head", str(tmp_path / "head.pt"), "-o", str(model), "--quantize", "int4", "--min-agreement", "1"]
    assert export([*arguments, "--calibration", str(flat)]) == 1
    message = capsys.readouterr().err
    assert "No file was written" in message
    assert "->" in message  # a flip, by the name of its file
    assert ".png" in message
    assert model.read_bytes() == b"what was here before"
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


def test_a_refusal_names_the_best_attempt():
    attempts = [
        Attempt(f"blocks of {block} weights", "", SINGLE_LABEL, Decisions(100, agreement, (), 0.1, 0.5, None, None))
        for block, agreement in ((128, 0.91), (64, 0.95), (32, 0.93))
    ]
    error = refusal(QuantizationOptions("int4", targets.TARGETS["x86"]), attempts, can_refit=True)
    assert str(error).startswith(
        "int4: the best of 3 attempts (blocks of 64 weights) decides as the float file on 95.00%"
    )
    assert "You can use --quantize int8, or let the head adapt with --refit; if" in str(error)


def a_few(photos: Path, folder: Path, *names: str, count: int = 40) -> Path:
    """Copies of some of the photos, in a folder of their own."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for path in sorted((photos / name).iterdir())[:count]:
            (folder / name / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def quantize(head_file: Callable[[str], Path], tmp_path: Path) -> Callable[..., int]:
    head = head_file("clip")
    return lambda *options: export(
        ["--head", str(head), "-o", str(tmp_path / "m.onnx"), "--quantize", "int8", *map(str, options)]
    )


def test_too_few_calibration_images(quantize, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert quantize("--calibration", a_few(photos, tmp_path / "few", "red", count=9)) == 1
    assert "at least 16" in capsys.readouterr().err
    assert quantize("--calibration", a_few(photos, tmp_path / "more", "red", count=30)) == 1
    said = capsys.readouterr().err
    assert "evaluation: expected at least 16 different readable images, got 10 from more (every third image" in said
    assert "Name a larger folder with --calibration." in said  # --evaluation alone would not be enough


def test_unreadable_images_are_skipped_and_named(
    quantize, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = a_few(photos, tmp_path / "some", *CLASSES, count=20)
    (folder / "red" / "broken.jpg").write_bytes(b"no image")
    assert quantize("--calibration", folder) == 0
    assert "broken.jpg" in capsys.readouterr().err
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image either")
    assert quantize("--calibration", folder) == 1
    assert "could not be read" in capsys.readouterr().err


def test_common_images_are_refused(quantize, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tuned = a_few(photos, tmp_path / "tuned", "red", "green", count=20)
    judged = a_few(photos, tmp_path / "judged", "green", "blue", count=20)
    assert quantize("--calibration", tuned, "--evaluation", judged) == 1
    assert "20 of its images" in capsys.readouterr().err
    apart = a_few(photos, tmp_path / "apart", "blue", count=20)
    assert quantize("--calibration", tuned, "--evaluation", apart) == 0


def test_folders_of_other_classes(quantize, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = a_few(photos, tmp_path / "other", "red")
    (folder / "red").rename(folder / "crimson")
    assert quantize("--calibration", folder) == 1
    assert "crimson is none of the model's classes (red, green, blue)" in capsys.readouterr().err


def test_missing_folder_and_evaluation_alone(
    quantize, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert quantize("--calibration", tmp_path / "nowhere") == 1
    assert "no such folder" in capsys.readouterr().err
    assert quantize("--evaluation", photos) == 1
    assert "--calibration" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ("--calibration", "x"),
        ("--quantize", "int8", "--min-agreement", "1.5"),
        ("--quantize", "int8", "--target", "z80"),
        ("--quantize", "int4", "--target", "x86"),
        ("--quantize", "fp16", "--refit"),
        ("--quantize", "int2"),
    ],
)
def test_usage(options: tuple[str, ...]):
    with pytest.raises(SystemExit) as caught:
        export(["--head", "head.pt", *options])
    assert caught.value.code == 2


def test_fp16_overflow_is_named(
    checkpoint, head_file: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    huge = shutil.copytree(checkpoint("clip"), tmp_path / "huge")
    weights = load_file(huge / "model.safetensors")
    weights |= {name: value * 3e4 for name, value in weights.items() if name.endswith("layer_norm2.weight")}
    save_file(weights, huge / "model.safetensors", metadata={"format": "pt"})
    model = tmp_path / "m.onnx"
    assert (
        export(["--head", str(head_file("clip")), "--encoder", str(huge), "-o", str(model), "--quantize", "fp16"]) == 1
    )
    message = capsys.readouterr().err
    assert "fp16: the activation" in message
    assert "65504" in message
    assert not model.exists()


def test_target_follows_the_processor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(processor, "cpu_flags", lambda: frozenset({"avx2", "avx512_vnni"}))
    assert targets.find_target("auto").name == "x86-vnni"
    monkeypatch.setattr(processor, "cpu_flags", lambda: frozenset({"avx2"}))
    assert targets.find_target("auto").name == "x86"
    with pytest.raises(clip_toolkit.ClipToolkitError, match="Use --target x86"):
        targets.find_target("x86-vnni")
    monkeypatch.setattr(processor.platform, "machine", lambda: "aarch64")
    assert targets.find_target("auto").name == "arm64"
