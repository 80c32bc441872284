"""TIPSv2, which transformers has since 5.14: both towers against its own."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

import clip_toolkit
from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder, text_features, token_counts, tokenised
from clip_export.graph.text_weights import canonical_text
from clip_export.graph.vit_weights import canonical_vit
from clip_export.text_exporting import export_text_tower

pytestmark = [
    pytest.mark.transformers,
    pytest.mark.skipif(not hasattr(transformers, "Tipsv2Model"), reason="this transformers has no TIPSv2"),
]


@torch.inference_mode()
def test_canonical_transformer_equals_the_transformers_model(
    checkpoint: Callable[[str], Path], encoder: Callable[..., Encoder]
):
    values = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model = transformers.Tipsv2Model.from_pretrained(checkpoint("tipsv2"), dtype=torch.float32).eval()
    expected = model.get_image_features(pixel_values=values).pooler_output
    assert expected.std() > 0.05
    torch.testing.assert_close(encoder("tipsv2").features(values), expected, atol=1e-6, rtol=1e-6)
    vit = canonical_vit(encoder("tipsv2"), takes_pixel_values=True)
    torch.testing.assert_close(vit(values), expected, atol=2e-5, rtol=1e-5)


def test_pixels_are_resized_and_not_normalised(encoder: Callable[..., Encoder]):
    rule = encoder("tipsv2").preprocessing
    assert (rule.mode, rule.size, rule.resample, rule.mean, rule.std) == ("squash", 32, "bilinear", (0,) * 3, (1,) * 3)
    assert "Tipsv2ImageProcessor is torchvision's" in "".join(encoder("tipsv2").notes)


TEXTS = ["A Red circle", "", "日本語 ñandú", "blue " * 20]


@pytest.fixture(scope="module")
def tower(checkpoint: Callable[[str], Path]) -> TextEncoder:
    return TextEncoder.from_pretrained(str(checkpoint("tipsv2")))


@torch.inference_mode()
def test_texts_are_averaged_as_transformers_does(tower: TextEncoder):
    """Its own processor pads to the context."""
    model = transformers.Tipsv2Model.from_pretrained(tower.id, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tower.id)
    tokens = tokenizer(TEXTS, padding="max_length", max_length=tower.context, truncation=True, return_tensors="pt")
    expected = model.get_text_features(**tokens).pooler_output
    assert expected[[0, 2, 3]].std() > 0.05
    torch.testing.assert_close(text_features(tower, TEXTS), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(canonical_text(tower)(**tokenised(tower, TEXTS)), expected, atol=2e-5, rtol=1e-5)
    assert 1 / tower.logit_scale == pytest.approx(model.temperature.item())


def test_a_text_without_tokens_is_zero_alone_and_beside_others(tower: TextEncoder):
    assert token_counts(tower, ["", "a"])[0] == 0
    for texts in ([""], ["", " "], ["", "a"]):
        assert not text_features(tower, texts)[0].any()


def test_the_text_tower_becomes_a_file(tower: TextEncoder, tmp_path: Path):
    """In int8, too: a text without a direction has no cosine similarity."""
    spec = export_text_tower(tower, tmp_path / "text.onnx", min_cosine=0.9)
    assert spec.quantization.least_cosine < 1.001
    encoder = clip_toolkit.load_text(tmp_path / "text.onnx")
    assert not encoder.encode([""]).any()
    alone, beside = encoder.encode(["A red circle"]), encoder.encode(["a RED circle", "two blue circles"])
    assert alone[0] == pytest.approx(beside[0], abs=1e-6)
