"""Image towers saved without their texts: the same features as in the whole checkpoint."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_export.graph.vit_weights import canonical_vit
from clip_toolkit.errors import EncoderError

pytestmark = pytest.mark.transformers

TOWERS = {
    "CLIPVisionModel": "clip",
    "CLIPVisionModelWithProjection": "clip",
    "SiglipVisionModel": "siglip",
    "BlipVisionModel": "blip",
    "MetaClip2VisionModel": "metaclip2",
    "MetaClip2VisionModelWithProjection": "metaclip2",
    "ChineseCLIPVisionModel": "chinese-clip",
    "AltCLIPVisionModel": "altclip",
}


def save_tower(kind: str, whole: Encoder, folder: Path) -> None:
    config = copy.deepcopy(whole.tower.config)
    config.projection_dim = whole.dim
    model = getattr(transformers, kind)(config)
    getattr(model, "vision_model", model).load_state_dict(whole.tower.state_dict())
    if whole.projection is not None:
        model.visual_projection.load_state_dict(whole.projection.state_dict())
    model.save_pretrained(folder)


@pytest.mark.parametrize("kind", TOWERS)
@torch.inference_mode()
def test_towers_alone(checkpoint: Callable[[str], Path], encoder: Callable[..., Encoder], tmp_path: Path, kind: str):
    name, projects = TOWERS[kind], kind.endswith("WithProjection")
    save_tower(kind, encoder(name, "projected" if projects else "pooled"), tmp_path)
    shutil.copy(checkpoint(name) / "preprocessor_config.json", tmp_path)
    values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for feature in ("pooled", "projected") if projects else ("pooled",):
        expected, alone = encoder(name, feature).features(values), Encoder.from_pretrained(str(tmp_path), None, feature)
        torch.testing.assert_close(alone.features(values), expected, atol=0, rtol=0)
        found = canonical_vit(alone, takes_pixel_values=True)(values)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    with pytest.raises(EncoderError, match=f"{kind} has no text tower"):
        TextEncoder.from_pretrained(str(tmp_path))
