"""Text towers: features equal to transformers' own, and clear refusals."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from clip_export.encoders.text import TextEncoder, text_features, token_counts, tokenised, truncated
from clip_toolkit.errors import EncoderError
from tiny_tokenizers import CONTEXT

pytestmark = pytest.mark.transformers

Checkpoint = Callable[[str], Path]

FAMILIES = ("clip", "siglip", "siglip2", "blip-retrieval")
LONG = "a photo of the red circle " * 8
TEXTS = ["a photo of the red circle", "blue", "", "日本語 ñandú Привет", LONG]


@pytest.fixture(scope="module", params=FAMILIES)
def tower(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> TextEncoder:
    return TextEncoder.from_pretrained(str(checkpoint(request.param)))


@pytest.fixture
def copy(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A CLIP checkpoint to damage."""
    return Path(shutil.copytree(checkpoint("clip"), tmp_path / "copy"))


@torch.inference_mode()
def by_transformers(folder: str, texts: list[str]) -> torch.Tensor:
    """The features as the families' model cards compute them."""
    kind = json.loads((Path(folder) / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    padding = "max_length" if kind == "SiglipModel" else True
    texts = [text.lower() for text in texts] if kind == "SiglipModel" else texts  # SigLIP 2's needs it done beforehand
    tokens = tokenizer(texts, padding=padding, max_length=CONTEXT, truncation=True, return_tensors="pt")
    if kind == "SiglipModel":
        found = model.get_text_features(input_ids=tokens["input_ids"])
    elif kind == "CLIPModel":
        found = model.get_text_features(**tokens)
    else:
        hidden = model.text_encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        found = model.text_proj(hidden.last_hidden_state[:, 0])
    return found if isinstance(found, torch.Tensor) else found.pooler_output


def test_features_are_those_of_transformers(tower: TextEncoder):
    found = text_features(tower, TEXTS)
    assert found.shape == (len(TEXTS), tower.dim)
    assert found.dtype == torch.float32
    assert torch.allclose(found, by_transformers(tower.id, TEXTS), atol=1e-5)
    tokens = tokenised(tower, TEXTS)["input_ids"]  # the long text may be the first one, cut off
    assert torch.equal(torch.cdist(found, found) > 1e-3, (tokens[:, None] != tokens).any(-1))


def test_features_do_not_depend_on_the_other_texts_of_a_batch(tower: TextEncoder):
    assert torch.allclose(text_features(tower, TEXTS), text_features(tower, TEXTS, batch_size=1), atol=1e-5)


def test_no_texts_have_no_features(tower: TextEncoder):
    assert text_features(tower, []).shape == (0, tower.dim)
    assert truncated(tower, []) == []


def test_tower_is_frozen_and_in_float32(tower: TextEncoder):
    assert not tower.model.training
    assert {parameter.dtype for parameter in tower.model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in tower.model.parameters())


def test_texts_beyond_the_context_are_named(tower: TextEncoder):
    assert truncated(tower, TEXTS) == [text for text in TEXTS if token_counts(tower, [text])[0] > CONTEXT]
    assert LONG in truncated(tower, TEXTS)
    assert tokenised(tower, [LONG])["input_ids"].shape == (1, CONTEXT)


def test_a_text_that_just_fits_is_not_cut(tower: TextEncoder):
    fits = next("x" * n for n in range(CONTEXT) if token_counts(tower, ["x" * n]) == [CONTEXT])
    assert truncated(tower, [fits, fits + "x"]) == [fits + "x"]


@pytest.mark.parametrize("name", ["siglip", "siglip2"])
def test_siglip_pads_to_its_context_reads_the_padding_and_lower_cases(checkpoint: Checkpoint, name: str):
    tower = TextEncoder.from_pretrained(str(checkpoint(name)))
    tokens = tokenised(tower, ["Red", "red"])
    assert set(tokens) == {"input_ids"}
    assert tokens["input_ids"].shape == (2, CONTEXT)
    assert torch.equal(*tokens["input_ids"])


@pytest.mark.parametrize("name", ["clip", "blip-retrieval"])
def test_clip_and_blip_mask_the_padding(checkpoint: Checkpoint, name: str):
    tower = TextEncoder.from_pretrained(str(checkpoint(name)))
    tokens = tokenised(tower, ["red", "red circle"])
    assert tokens["attention_mask"].sum(1).tolist() == token_counts(tower, ["red", "red circle"])


def test_scale_and_bias_are_the_checkpoints(checkpoint: Checkpoint):
    weights = load_file(checkpoint("siglip") / "model.safetensors")
    siglip = TextEncoder.from_pretrained(str(checkpoint("siglip")))
    assert siglip.logit_scale == pytest.approx(weights["logit_scale"].exp().item())
    assert siglip.logit_bias == pytest.approx(weights["logit_bias"].item())
    assert TextEncoder.from_pretrained(str(checkpoint("clip"))).logit_bias is None


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("blip", "BlipForConditionalGeneration"),
        ("blip", "BlipForQuestionAnswering"),
        ("clip", "CLIPVisionModelWithProjection"),
        ("siglip", "SiglipVisionModel"),
    ],
)
def test_checkpoints_without_a_text_tower_are_refused_by_name(
    checkpoint: Checkpoint, tmp_path: Path, name: str, architecture: str
):
    folder = Path(shutil.copytree(checkpoint(name), tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))
    with pytest.raises(EncoderError, match=rf"{architecture} has no text tower.*CLIPModel, SiglipModel, .*BlipFor"):
        TextEncoder.from_pretrained(str(folder))


def test_missing_tokenizer(copy: Path):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(EncoderError, match=r"has no tokenizer.*save_pretrained"):
        TextEncoder.from_pretrained(str(copy))


def test_damaged_tokenizer(copy: Path):
    (copy / "vocab.json").write_text("{")
    with pytest.raises(EncoderError, match="tokenizer cannot be loaded"):
        TextEncoder.from_pretrained(str(copy))


def test_a_tokenizer_that_grows_is_refused_before_it_is_loaded(copy: Path):
    doubling = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "a" * 1000}] * 9}
    model = {"type": "BPE", "vocab": {}, "merges": []}
    (copy / "tokenizer.json").write_text(json.dumps({"model": model, "normalizer": doubling}))
    with pytest.raises(EncoderError, match=r"tokenizer cannot be loaded.*grow 10000 times"):
        TextEncoder.from_pretrained(str(copy))


def test_a_tokenizer_without_padding_token(copy: Path):
    config = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": None}))
    with pytest.raises(EncoderError, match=r'no padding token.*"pad_token" in its tokenizer_config\.json'):
        TextEncoder.from_pretrained(str(copy))


def test_missing_text_weights_are_not_filled_with_random_ones(copy: Path):
    weights = load_file(copy / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(EncoderError, match=r"lacks 1 of the text tower's weights.*text_projection"):
        TextEncoder.from_pretrained(str(copy))


def test_tokenizer_of_another_checkpoint(copy: Path):
    vocabulary = json.loads((copy / "vocab.json").read_text())
    (copy / "vocab.json").write_text(json.dumps({token: index + 500 for token, index in vocabulary.items()}))
    tower = TextEncoder.from_pretrained(str(copy))
    with pytest.raises(EncoderError, match=r"token \d+, but the text tower knows 514"):
        text_features(tower, ["red"])
