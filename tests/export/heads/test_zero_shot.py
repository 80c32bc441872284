"""`clip-export --zero-shot`: the file decides as transformers' zero-shot classification does."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import transformers
from PIL import Image
from torch.nn import functional

from clip_export.commands.export import main as export
from clip_export.commands.export_options import parse_args
from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder, text_features
from clip_export.exporting import export_classifier
from clip_export.heads.files import load_head, save_head
from clip_export.heads.zero_shot import zero_shot, zero_shot_head
from clip_export.quantization.layers.feature import feature_name
from clip_export.samples.pictures import picture
from clip_toolkit import load
from clip_toolkit.commands.infer import main as infer
from clip_toolkit.errors import HeadError
from clip_toolkit.spec.model_file import read_spec
from tiny_tokenizers import CONTEXT

Checkpoint = Callable[[str], Path]

MODELS = Path(__file__).parents[3] / "models"
LABELS = ("red", "blue", "circle")
PICTURES = [picture(32, 32, seed) for seed in range(4)]  # of the encoder's size: no resize, no rounding


@torch.inference_mode()
def by_transformers(folder: Path, prompts: list[str]) -> torch.Tensor:
    """Probabilities ``[pictures, prompts]`` as transformers' zero-shot pipeline computes them; of BLIP the cosines."""
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    padding = "max_length" if kind == "SiglipModel" else True
    tokens = tokenizer(prompts, padding=padding, max_length=CONTEXT, truncation=True, return_tensors="pt")
    pixels = Encoder.from_pretrained(str(folder)).processor(images=PICTURES, return_tensors="pt")["pixel_values"]
    inputs = {"input_ids": tokens["input_ids"], "pixel_values": pixels}
    if kind == "SiglipModel":
        return model(**inputs).logits_per_image.sigmoid()
    inputs["attention_mask"] = tokens["attention_mask"]
    if kind == "CLIPModel":
        return model(**inputs).logits_per_image.softmax(-1)
    rows = [model(use_itm_head=False, **inputs | {"pixel_values": row[None]}).itm_score for row in pixels]
    return torch.cat(rows)


@pytest.fixture(scope="module")
def exported(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def make(name: str, *more: str) -> Path:
        path = tmp_path_factory.mktemp("zero-shot") / "model.onnx"
        words = ["--zero-shot", "--labels", *LABELS, "--encoder", str(checkpoint(name))]
        assert export([*words, "-o", str(path), *more]) == 0
        return path

    return make


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2", "blip-retrieval"])
@pytest.mark.transformers
def test_probabilities_are_those_of_transformers(exported: Callable[..., Path], checkpoint: Checkpoint, name: str):
    answers = list(load(exported(name), device="cpu").predict_many(PICTURES))
    wanted = by_transformers(checkpoint(name), [f"a photo of a {label}" for label in LABELS])
    if name == "blip-retrieval":  # transformers stops at the cosine; BLIP's training starts from a temperature of 0.07
        assert np.abs(np.stack([each.logits for each in answers]) - wanted.numpy() / 0.07).max() < 1e-3
        wanted = (wanted / 0.07).softmax(-1)
    assert np.abs(np.stack([each.probabilities for each in answers]) - wanted.numpy()).max() < 1e-4
    assert answers[0].task == ("multi-label" if name.startswith("siglip") else "single-label")


def test_the_file_says_how_it_was_made_and_has_no_text_tower(
    exported: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    path = exported("clip", "--templates", "a {}", "the {}")
    assert "'a {}', 'the {}'" in capsys.readouterr().out
    spec = read_spec(path)
    assert spec.labels == LABELS
    assert spec.training["templates"] == ["a {}", "the {}"]
    assert (spec.encoder.id, spec.encoder.feature) == ("clip", "projected")
    assert spec.head.feature_norm
    assert spec.head.layers == (spec.encoder.dim, len(LABELS))
    weights = {item.name for item in onnx.load(path).graph.initializer}
    assert not any("text" in name or "token_embedding" in name for name in weights)
    assert infer(["--describe", str(path)]) == 0
    assert "normalised feature, 24 -> 3" in capsys.readouterr().out
    assert infer(["--selftest", str(path)]) == 0


@pytest.mark.transformers
def test_an_ensemble_is_the_normalised_mean_of_normalised_prompts(checkpoint: Checkpoint):
    tower = TextEncoder.from_pretrained(str(checkpoint("clip")))
    found = zero_shot(tower, ["red", "blue"], ["a {}", "{} {}", "of the {}"])
    for label, direction in zip(("red", "blue"), found.directions, strict=True):
        prompts = [f"a {label}", f"{label} {label}", f"of the {label}"]
        mean = functional.normalize(text_features(tower, prompts), dim=1).mean(0)
        assert torch.allclose(direction, mean / mean.norm(), atol=1e-6)


def test_a_zero_shot_head_survives_its_file(checkpoint: Checkpoint, encoder: Callable[..., Encoder], tmp_path: Path):
    head = zero_shot_head(TextEncoder.from_pretrained(str(checkpoint("clip"))), LABELS)
    save_head(head, tmp_path / "head.pt")
    again = load_head(tmp_path / "head.pt")
    features = torch.randn(5, 24)
    assert torch.equal(again.module(features), head.module(features))
    assert torch.allclose(again.module(3 * features), head.module(features), atol=1e-5)  # direction alone counts
    export_classifier(again, encoder("clip", "projected"), tmp_path / "model.onnx")
    assert read_spec(tmp_path / "model.onnx").head.feature_norm


def test_readers_that_would_not_normalise_are_told_to_upgrade(
    checkpoint: Checkpoint, encoder: Callable[..., Encoder], head_for: Callable, tmp_path: Path
):
    zero = zero_shot_head(TextEncoder.from_pretrained(str(checkpoint("clip"))), LABELS)
    versions = []
    for head in (zero, head_for(encoder("clip"))):
        save_head(head, tmp_path / "head.pt")
        content = torch.load(tmp_path / "head.pt", weights_only=True)
        versions.append(json.loads(content["clip-toolkit-head"])["version"])
    assert versions == [2, 1]


@pytest.mark.transformers
def test_it_quantizes(exported: Callable[..., Path], tmp_path: Path):
    for seed in range(48):
        Image.fromarray(np.asarray(picture(40, 40, seed))).save(tmp_path / f"{seed}.png")
    options = ("--quantize", "int8", "--calibration", str(tmp_path), "--min-agreement", "0", "--refit")
    path = exported("clip", *options)
    receipt = read_spec(path).quantization
    assert (receipt.mode, receipt.calibration_images + receipt.evaluation_images) == ("int8", 48)
    answer = load(path, device="cpu").predict(PICTURES[0])
    assert np.linalg.norm(answer.embedding) == pytest.approx(1, abs=1e-5)


def test_quantization_finds_the_feature_before_its_norm(exported: Callable[..., Path]):
    graph = onnx.load(exported("clip")).graph
    (producer,) = (node for node in graph.node if feature_name(onnx.helper.make_model(graph)) in node.output)
    assert "vit.projection.weight" in producer.input


def test_tiny_clip_knows_a_hundred_words_and_decides_as_transformers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(str(MODELS))
    from scenes import COLOURS, SHAPES
    from tiny_data import picture as drawn
    from tiny_data import random_scenes
    from tiny_eval import HELD_OUT_SEED, embed_pictures, embed_texts

    labels = [f"{colour} {shape}" for shape, colour in itertools.product(SHAPES, COLOURS)]
    scenes = random_scenes(200, HELD_OUT_SEED)
    folder, path = MODELS / "tiny-clip", tmp_path / "model.onnx"
    assert export(["--zero-shot", "--labels", *labels, "--encoder", str(folder), "-o", str(path)]) == 0
    pictures = [drawn(job, HELD_OUT_SEED) for job in enumerate(scenes)]
    ours = [each.label for each in load(path, device="cpu").predict_many(pictures, batch_size=50)]
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tower = Encoder.from_pretrained(str(folder))  # its processor is Pillow's, as the file's rule is

    def processor(images: list | None = None, text: list | None = None, **options: object) -> object:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        return tower.processor(images, return_tensors="pt") if text is None else tokenizer(text, **options)

    texts = embed_texts(model, processor, [f"a photo of a {label}" for label in labels])
    theirs = (embed_pictures(model, processor, scenes, HELD_OUT_SEED) @ texts.T).argmax(1)
    assert ours == [labels[index] for index in theirs]
    truth = [f"{scene.colour} {scene.shape}" for scene in scenes]
    assert np.mean([said == wanted for said, wanted in zip(ours, truth, strict=True)]) >= 0.98


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels", "red", "blue", "--templates", "a photo"], r"'a photo' has no \{\}.*'a photo of a \{\}'"),
        (["--labels", "red", "blue", "red"], "'red' more than once"),
        (["--labels", "red", "RED"], "'red' and 'RED' are the same to the tokenizer"),
        (["--labels", "red", " "], "a label is empty"),
        (["--labels", "red", "blue " * 20], r"has \d+ tokens, but the text tower .* reads at most 24"),
        (["--labels", "red", "\udcff"], "not valid Unicode"),
        (["--labels", "red"], r"'red' is the only label.*Add another, such as 'no red'"),
    ],
)
def test_words_that_make_no_classifier(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
):
    output = tmp_path / "model.onnx"
    assert export(["--zero-shot", "--encoder", str(checkpoint("clip")), "-o", str(output), *words]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
    assert not output.exists()


@pytest.mark.transformers
def test_one_label_is_enough_for_siglip_alone(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch):
    assert zero_shot_head(TextEncoder.from_pretrained(str(checkpoint("siglip"))), ["red"]).labels == ("red",)
    with pytest.raises(HeadError, match="only label"):
        zero_shot_head(TextEncoder.from_pretrained(str(checkpoint("clip"))), ["red"])
    monkeypatch.setattr(TextEncoder, "from_pretrained", lambda *_: pytest.fail("the text tower was loaded"))
    assert export(["--zero-shot", "--labels", "red", "--encoder", str(checkpoint("clip"))]) == 1


@pytest.mark.parametrize("name", ["siglip", "clip"])
@pytest.mark.transformers
def test_a_label_that_the_tokenizer_leaves_out_is_refused(checkpoint: Checkpoint, name: str):
    tower = TextEncoder.from_pretrained(str(checkpoint(name)))
    if name == "siglip":  # which reads no punctuation
        with pytest.raises(HeadError, match="nothing is left of the label '!'"):
            zero_shot(tower, ["red", "!"])
    else:
        assert zero_shot(tower, ["red", "!"]).directions.shape == (2, tower.dim)


@pytest.mark.transformers
def test_an_encoder_without_text_is_refused(checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--zero-shot", "--labels", "a", "b", "--encoder", str(checkpoint("blip"))]
    assert export([*words, "-o", str(tmp_path / "model.onnx")]) == 1
    assert "BlipForConditionalGeneration has no text tower" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--zero-shot", "--head", "head.pt", "--labels", "a", "b", "--encoder", "x"],
        ["--zero-shot", "--encoder", "x"],
        ["--zero-shot", "--labels", "a", "b"],
        ["--zero-shot", "--labels", "a", "b", "--encoder", "x", "--feature", "pooled"],
        ["--head", "head.pt", "--templates", "a {}"],
        ["--zero-shot", "--labels", "a", "b", "--encoder", "x", "--activation", "relu"],
        ["--head", "head.pt", "--min-agreement", "0.9"],
        ["--head", "head.pt", "--search-minutes", "5"],
        ["--head", "head.pt", "--quantize", "fp16", "--search-minutes", "5"],
    ],
)
def test_options_that_do_not_go_together(words: list[str]):
    with pytest.raises(SystemExit) as stopped:
        parse_args(words)
    assert stopped.value.code == 2
