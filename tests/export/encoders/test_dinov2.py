"""DINOv2: registers, layer scale and resampled positions against transformers, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_export.exporting import export_classifier
from clip_export.graph.vit_weights import canonical_vit
from clip_export.heads.files import TrainedHead
from clip_export.training.finetuning.halves import check_blocks
from clip_toolkit.errors import EncoderError

pytestmark = pytest.mark.transformers

CheckpointOf = Callable[[str], Path]
EncoderOf = Callable[..., Encoder]


@pytest.mark.parametrize(
    ("name", "kind"), [("dinov2", "Dinov2Model"), ("dinov2-registers", "Dinov2WithRegistersModel")]
)
@torch.inference_mode()
def test_canonical_transformer_equals_the_transformers_model(
    checkpoint: CheckpointOf, encoder: EncoderOf, name: str, kind: str
):
    values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model = getattr(transformers, kind).from_pretrained(checkpoint(name), dtype=torch.float32).eval()
    expected = model(pixel_values=values).pooler_output
    assert expected.std() > 0.05
    torch.testing.assert_close(encoder(name).features(values), expected, atol=1e-6, rtol=1e-6)
    found = canonical_vit(encoder(name), takes_pixel_values=True)(values)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_scales_of_residuals_are_folded(encoder: EncoderOf):
    layer = encoder("dinov2").tower.encoder.layer[0]
    block = canonical_vit(encoder("dinov2")).blocks[0]
    x = torch.randn(2, 48, generator=torch.Generator().manual_seed(1))
    is_old = hasattr(layer.attention, "output")  # before transformers 5
    dense = layer.attention.output.dense if is_old else layer.attention.o_proj
    torch.testing.assert_close(block.out(x), layer.layer_scale1(dense(x)))
    x = torch.randn(2, 96, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(block.fc2(x), layer.layer_scale2(layer.mlp.fc2(x)))


def test_registers_stand_between_class_token_and_patches_without_position(encoder: EncoderOf):
    used = encoder("dinov2-registers")
    vit = canonical_vit(used)
    assert vit.config.prefix == 4
    assert torch.equal(vit.positions[:, 1:4], used.tower.embeddings.register_tokens)


def test_from_image_bytes_to_a_proved_file(
    encoder: EncoderOf, head_for: Callable[[Encoder], TrainedHead], tmp_path: Path
):
    used = encoder("dinov2-registers")
    assert export_classifier(head_for(used), used, tmp_path / "model.onnx").spec.encoder.family == "dinov2"


def test_missing_weights_are_not_filled_with_random_ones(checkpoint: CheckpointOf, tmp_path: Path):
    folder = Path(shutil.copytree(checkpoint("dinov2"), tmp_path / "copy"))
    weights = load_file(folder / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(EncoderError, match=r"lacks 1 .*layernorm\.weight"):
        Encoder.from_pretrained(str(folder))


def test_what_it_does_not_have_is_refused(checkpoint: CheckpointOf, encoder: EncoderOf):
    with pytest.raises(EncoderError, match="Dinov2Model has no text tower"):
        TextEncoder.from_pretrained(str(checkpoint("dinov2")))
    with pytest.raises(EncoderError, match="dinov2 encoders cannot be fine-tuned"):
        check_blocks(encoder("dinov2"), 1)
    with pytest.raises(EncoderError, match="use_swiglu_ffn"):
        Encoder.from_pretrained(str(checkpoint("dinov2-gated")))
