"""Image towers saved without their texts: the same features as in the whole checkpoint."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_export.graph.vit_weights import canonical_vit
from clip_export.proof.reference import pixel_values
from clip_export.samples.pictures import picture
from clip_toolkit.errors import EncoderError
from clip_toolkit.images.preprocess import preprocess
from tiny_models import TOWERS

pytestmark = pytest.mark.transformers


@pytest.mark.parametrize("kind", TOWERS)
@torch.inference_mode()
def test_towers_alone(checkpoint: Callable[[str], Path], encoder: Callable[..., Encoder], kind: str):
    if not hasattr(transformers, kind):
        pytest.skip("this transformers has no such class")
    file = io.BytesIO()
    image = picture(40, 49, seed=1)
    image.save(file, "PNG")
    for feature in ("pooled", "projected") if kind.endswith("WithProjection") else ("pooled",):
        whole, alone = encoder(TOWERS[kind], feature), encoder(kind, feature)
        expected = whole.features(pixel_values(whole, file.getvalue()))
        assert expected.std() > 0.02
        torch.testing.assert_close(alone.features(pixel_values(alone, file.getvalue())), expected, atol=0, rtol=0)
        prepared = torch.from_numpy(preprocess(image, alone.preprocessing).copy())
        torch.testing.assert_close(canonical_vit(alone)(prepared[None]), expected, atol=2e-5, rtol=1e-5)
    with pytest.raises(EncoderError, match=f"{kind} has no text tower"):
        TextEncoder.from_pretrained(str(checkpoint(kind)))
