"""TIPSv2, which transformers has since 5.14: the image tower against transformers', and the text tower refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_export.graph.vit_weights import canonical_vit
from clip_toolkit.errors import EncoderError

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


def test_its_text_tower_is_refused(checkpoint: Callable[[str], Path]):
    with pytest.raises(EncoderError, match="Tipsv2Model has no text tower that"):
        TextEncoder.from_pretrained(str(checkpoint("tipsv2")))
