"""Families made of towers that others have, too: both towers against transformers, and from bytes to the runtime."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder, text_features, tokenised
from clip_export.exporting import export_classifier
from clip_export.graph.text_weights import canonical_text
from clip_export.graph.vit_weights import canonical_vit
from clip_export.heads.zero_shot import zero_shot_head
from clip_export.text_exporting import export_text_tower
from tiny_models import RELATED

pytestmark = pytest.mark.transformers

CheckpointOf = Callable[[str], Path]
EncoderOf = Callable[..., Encoder]
TEXTS = ["a red circle", "blue", "square of the photo"]


@pytest.fixture(params=RELATED)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def whole(folder: Path) -> transformers.PreTrainedModel:
    (kind,) = json.loads((folder / "config.json").read_text())["architectures"]
    return getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def test_image_tower(checkpoint: CheckpointOf, encoder: EncoderOf, name: str):
    values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model = whole(checkpoint(name))
    pooled = model.vision_model(pixel_values=values).pooler_output
    for feature, expected in (("pooled", pooled), ("projected", model.visual_projection(pooled))):
        used = encoder(name, feature)
        torch.testing.assert_close(used.features(values), expected, atol=1e-6, rtol=1e-6)
        found = canonical_vit(used, takes_pixel_values=True)(values)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@torch.inference_mode()
def test_text_tower(checkpoint: CheckpointOf, name: str):
    tower, model = TextEncoder.from_pretrained(str(checkpoint(name))), whole(checkpoint(name))
    tokens = tokenised(tower, TEXTS)
    outputs = model(pixel_values=torch.zeros(1, 3, 32, 32), **tokens)
    found = text_features(tower, TEXTS)
    torch.testing.assert_close(torch.nn.functional.normalize(found, dim=-1), outputs.text_embeds, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(canonical_text(tower)(**tokens), found, atol=2e-5, rtol=1e-5)
    assert tower.logit_scale == pytest.approx(model.logit_scale.exp().item())


def test_from_words_to_a_proved_file(checkpoint: CheckpointOf, encoder: EncoderOf, tmp_path: Path, name: str):
    tower, used = TextEncoder.from_pretrained(str(checkpoint(name))), encoder(name, "projected")
    spec = export_classifier(zero_shot_head(tower, ["red", "blue"]), used, tmp_path / "model.onnx").spec
    assert spec.encoder.family == used.family.name
    assert export_text_tower(tower, tmp_path / "text.onnx").encoder == spec.encoder
