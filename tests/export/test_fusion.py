"""Heads on picture and text as one file: against transformers, family by family; padding, quantization, bad input."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from questions import write_questions

from clip_export.encoders.digest import tokenizer_digest
from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder, text_features
from clip_export.exporting import ExportOptions, export_classifier
from clip_export.heads.files import TrainedHead, load_head, save_head
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.references import EncoderReference
from clip_export.proof.reference import reference
from clip_export.quantization.equalisation import equalised
from clip_export.quantization.evidence.feeds import Feeds
from clip_export.quantization.layers.linears import find_linears, with_plain_linears
from clip_export.quantization.ranges import observe, run
from clip_export.samples.pictures import golden_files
from clip_toolkit import Prediction, TextError, load, selftest
from clip_toolkit.errors import HeadError
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import REGRESSION
from commands_in_process import run as command
from commands_in_process import train
from tiny_models import LONG_TEXT, TEXT_FAMILIES, TINY_CLIP

LABELS = ("ant", "bee", "cow")
TEXTS = ("the red circle", "", "круг 東京", LONG_TEXT)

Made = tuple[Encoder, TextEncoder, TrainedHead, Path]


def fused_head(encoder: Encoder, tower: TextEncoder, task: str = "single-label") -> TrainedHead:
    """A head with random weights that reads both features, each of about the same weight."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = VLMtoMLP(encoder.dim + tower.dim, 16, len(LABELS)).eval()
    return TrainedHead(module, EncoderReference(encoder.id, None, encoder.feature, text=True), LABELS, task=task)


@pytest.fixture(scope="module")
def made(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """Both towers of a tiny checkpoint, a head, and the file of them, proved by the export itself."""
    files: dict[tuple[str, ...], Made] = {}

    def make(name: str, ops: str = "ort", kind: str = "image", task: str = "single-label") -> Made:
        key = (name, ops, kind, task)
        if key not in files:
            encoder, tower = (each.from_pretrained(str(checkpoint(name))) for each in (Encoder, TextEncoder))
            head = fused_head(encoder, tower, task)
            path = tmp_path_factory.mktemp("fused") / "model.onnx"
            export_classifier(head, encoder, path, options=ExportOptions(kind, ops), tower=tower)
            files[key] = encoder, tower, head, path
        return files[key]

    return make


def by_transformers(made: Made, pictures: Sequence[bytes], texts: Sequence[str]) -> np.ndarray:
    encoder, tower, head, _ = made
    features = text_features(tower, texts, batch_size=1)
    return reference(encoder, head.module, pictures, head.task, texts=features).logits


def logits(predictions: Sequence[Prediction]) -> np.ndarray:
    return np.stack([item.logits for item in predictions])


@pytest.mark.parametrize(
    ("name", "ops", "kind"),
    [
        *((name, "ort", "image") for name in TEXT_FAMILIES),
        ("clip", "standard", "pixels"),
        ("blip-retrieval", "standard", "image"),
    ],
)
@pytest.mark.transformers
def test_the_file_decides_as_transformers(made: Callable[..., Made], name: str, ops: str, kind: str):
    file = made(name, ops, kind)
    pictures = golden_files(32)
    expected = by_transformers(file, pictures, TEXTS)
    classifier = load(file[-1], device="cpu")
    for batch_size in (1, 3, 4):  # and so several amounts of padding
        found = logits(list(classifier.predict_many(pictures, batch_size, texts=TEXTS)))
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert len(np.unique(expected.round(4), axis=0)) == len(TEXTS)
    assert all(drift.passed for drift in selftest(classifier))


def test_the_text_matters_and_the_embedding_is_the_pictures(made: Callable[..., Made]):
    classifier = load(made("clip")[-1], device="cpu")
    first, second = (classifier.predict(golden_files(32)[0], text=text) for text in ("red", "blue"))
    assert np.abs(first.logits - second.logits).max() > 1e-3
    np.testing.assert_array_equal(first.embedding, second.embedding)


def test_what_is_in_the_file(made: Callable[..., Made]):
    _, tower, _, path = made("blip-retrieval", "standard")
    model = onnx.load(path)
    inputs = {
        item.name: [size.dim_param or size.dim_value for size in item.type.tensor_type.shape.dim]
        for item in model.graph.input
    }
    assert list(inputs) == ["image", "input_ids", "attention_mask"]
    assert inputs["input_ids"] == inputs["attention_mask"] == ["batch", "tokens"]
    assert {node.domain for node in model.graph.node} == {""}
    spec = read_spec(path)
    assert spec.text is not None
    assert spec.parity is not None
    assert (spec.text.dim, spec.text.tokenizer.context, spec.parity.texts) == (tower.dim, tower.context, 6)
    assert [vector.text is None for vector in spec.golden] == [False] * 4


@pytest.mark.transformers
def test_texts_that_are_cut_are_said_to_be(made: Callable[..., Made]):
    classifier = load(made("siglip")[-1], device="cpu")
    pictures = golden_files(32)
    cut = [item.text_truncated for item in classifier.predict_many(pictures, texts=["red", "", LONG_TEXT, "blue"])]
    assert cut == [False, False, True, False]


def test_values_instead_of_labels(made: Callable[..., Made]):
    file = made("clip", task=REGRESSION)
    expected = by_transformers(file, golden_files(32), TEXTS)
    found = logits(list(load(file[-1], device="cpu").predict_many(golden_files(32), texts=TEXTS)))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_head_of_another_width_is_refused(made: Callable[..., Made], tmp_path: Path):
    encoder, tower, head, _ = made("clip")
    narrow = replace(head, module=VLMtoMLP(encoder.dim, 8, 3))
    with pytest.raises(HeadError, match=r"takes 48 inputs, but the pooled feature with that of a text .* has 72"):
        export_classifier(narrow, encoder, tmp_path / "model.onnx", tower=tower)
    with pytest.raises(HeadError, match="takes 72 inputs, but the pooled feature of"):
        export_classifier(head, encoder, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", TEXT_FAMILIES)
def test_equalisation_changes_nothing_in_float(made: Callable[..., Made], name: str):
    """Not even where norms stand behind their residuals, and are read by those as well."""
    file = made(name)
    classifier = load(file[-1], device="cpu")
    assert classifier.tokenizer is not None

    tokens = classifier.tokenizer.encode(list(TEXTS))
    pixels = np.stack([classifier.pixels(picture) for picture in golden_files(32)])
    feeds = Feeds({"image": pixels, "input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask})
    model = with_plain_linears(onnx.load(file[-1]))
    layers = find_linears(model)
    assert {name.partition(".")[0] for name in layers} == {"vit", "text"}
    even, _ = equalised(model, observe(model, feeds, [layer.source for layer in layers.values()]), 0.5)
    ((before,), (after,)) = (next(run(each, feeds, ["logits"])) for each in (model, even))
    np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a head on a hundred questions, which are there still."""
    folder = tmp_path_factory.mktemp("trained")
    manifest = write_questions(folder / "questions", 100, seed=2)
    options = ("--text-column", "question", "--lr", "3e-3", "--epochs", "60", "--val-fraction", "0.3", "--keep-last")
    train(manifest, *options, cwd=folder)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        ("int8", "--search-minutes", "0.02"),
        ("int4",),
        ("fp16",),
    ],
)
def test_quantized_files_are_judged_on_pictures_with_their_texts(
    trained: Path, tmp_path: Path, options: tuple[str, ...]
):
    arguments = ("--head", trained / "head.pt", "-o", "small.onnx", "--min-agreement", "0.9", "--quantize", *options)
    done = command("clip-export", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    receipt = read_spec(tmp_path / "small.onnx").quantization
    assert receipt is not None
    assert (receipt.evaluation_images, receipt.agreement >= 0.9) == (30, True)
    assert receipt.size_ratio < (0.55 if options[0] == "fp16" else 0.4)
    assert all(drift.passed for drift in selftest(load(tmp_path / "small.onnx", device="cpu")))


def test_calibration_without_texts_is_refused(trained: Path, tmp_path: Path):
    arguments = ("--head", trained / "head.pt", "--quantize", "int8", "--calibration", trained / "questions")
    done = command("clip-export", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "a folder has none. Give a CSV file with the columns path, label and question" in done.stderr


@pytest.mark.transformers
def test_an_edited_tokenizer_is_refused(trained: Path, tmp_path: Path):
    encoder = shutil.copytree(TINY_CLIP, tmp_path / "encoder")
    head = load_head(trained / "head.pt")
    assert head.encoder is not None
    assert head.encoder.tokenizer == tokenizer_digest(encoder)
    save_head(replace(head, encoder=replace(head.encoder, id=str(encoder))), tmp_path / "head.pt")
    tokenizer = encoder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    done = command("clip-export", "--head", "head.pt", cwd=tmp_path)
    assert done.returncode == 1
    assert "the tokenizer of" in done.stderr


def test_from_manifest_to_runtime(trained: Path, tmp_path: Path):
    assert command("clip-export", "--head", trained / "head.pt", cwd=tmp_path).returncode == 0
    table = trained / "questions" / "questions.csv"
    arguments = ("--texts", table, "--text-column", "question", "--format", "jsonl")
    done = command("clip-infer", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    lines = table.read_text(encoding="utf-8").splitlines()[1:]
    assert len(records) == len(lines)
    right = [f"{Path(item['image']).name},{item['text']},{item['label']}" in lines for item in records]
    assert np.mean(right) > 0.8


def test_a_cross_check_is_refused(trained: Path, tmp_path: Path):
    done = command("clip-export", "--head", trained / "head.pt", "--cross-check", "optimum", cwd=tmp_path)
    assert done.returncode == 1
    assert "reads texts" in done.stderr


def test_text_and_none_are_not_mixed_up(made: Callable[..., Made], exported: Callable[..., Path]):
    picture = golden_files(32)[0]
    with pytest.raises(TextError, match="reads a text with each image"):
        load(made("clip")[-1], device="cpu").predict(picture)
    with pytest.raises(TextError, match="reads images alone"):
        load(exported("clip"), device="cpu").predict(picture, text="red")


def test_a_fused_head_is_kept_as_safetensors(made: Callable[..., Made], tmp_path: Path):
    head = made("clip")[2]
    save_head(head, tmp_path / "head.safetensors")
    assert load_head(tmp_path / "head.safetensors").encoder == head.encoder
