"""Encoders whose positions are rotations (RoPE) against transformers, and each rewrite by itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch.nn import functional

from clip_export.encoders.image import Encoder
from clip_export.exporting import ExportOptions, export_classifier
from clip_export.graph.blocks import rotated
from clip_export.graph.vit_weights import canonical_vit
from clip_export.heads.files import TrainedHead
from clip_toolkit.images.preprocess import preprocess

pytestmark = pytest.mark.transformers

CheckpointOf = Callable[[str], Path]
EncoderOf = Callable[..., Encoder]
KINDS = {"mlcd": "MLCDVisionModel", "dinov3": "DINOv3ViTModel", "dinov3-gated": "DINOv3ViTModel"}


def random_values() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_canonical_transformer_equals_the_transformers_model(checkpoint: CheckpointOf, encoder: EncoderOf, name: str):
    values, kind = random_values(), getattr(transformers, KINDS[name])
    expected = kind.from_pretrained(checkpoint(name), dtype=torch.float32).eval()(pixel_values=values).pooler_output
    assert expected.std() > 0.05
    torch.testing.assert_close(encoder(name).features(values), expected, atol=1e-6, rtol=1e-6)
    vit = canonical_vit(encoder(name), takes_pixel_values=True)
    torch.testing.assert_close(vit(values), expected, atol=2e-5, rtol=1e-5)
    vit.rotation.copy_(vit.rotation[:, :1].expand_as(vit.rotation))  # each patch in the same place
    assert not torch.allclose(vit(values), expected, atol=1e-2)


def test_rotations_turn_pairs_of_channels_by_their_angle():
    angles = torch.tensor([[0.3, 1.2], [0.7, -0.4]])
    cosines, sines = angles.cos(), angles.sin()
    rotation = torch.stack([torch.cat([cosines, cosines], 1), torch.cat([-sines, sines], 1)])
    x = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(1))
    first, second = x.reshape(1, 2, 2, 2, 2).unbind(3)
    turned = torch.complex(first, second) * torch.polar(torch.ones(2, 2), angles)[None, :, None]
    expected = torch.cat([turned.real, turned.imag], dim=-1).reshape(1, 2, 8)
    torch.testing.assert_close(rotated(x, rotation, heads=2), expected)


@pytest.mark.parametrize(("name", "ops"), [("mlcd", "standard"), ("dinov3-gated", "ort")])
def test_from_image_bytes_to_a_proved_file(
    encoder: EncoderOf, head_for: Callable[[Encoder], TrainedHead], tmp_path: Path, name: str, ops: str
):
    used, options = encoder(name), ExportOptions(ops=ops)
    spec = export_classifier(head_for(used), used, tmp_path / "model.onnx", options=options).spec
    assert spec.encoder.family == used.family.name


def test_dinov3_is_preprocessed_by_pillow_within_a_step_of_its_own_processor(encoder: EncoderOf):
    used = encoder("dinov3")
    assert "DINOv3ViTImageProcessor is torchvision's" in "".join(used.notes)
    assert used.preprocessing.mean == (0.485, 0.456, 0.406)
    image = torch.randint(0, 256, (3, 90, 71), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = preprocess(image.permute(1, 2, 0).numpy(), used.preprocessing)
    # As in transformers' class, which rescales before it resizes, so that nothing is rounded.
    expected = functional.interpolate(image[None].float(), (32, 32), mode="bilinear", antialias=True)[0]
    assert (torch.from_numpy(found.copy()).permute(2, 0, 1) - expected).abs().max() <= 1


@torch.inference_mode()
def test_a_gate_stands_before_what_it_opens_and_missing_biases_are_zero(encoder: EncoderOf):
    tower, block = encoder("dinov3-gated").tower, canonical_vit(encoder("dinov3-gated")).blocks[0]
    mlp = getattr(tower, "model", tower).layer[0].mlp
    x = torch.randn(2, 48, generator=torch.Generator().manual_seed(1))
    gate, opened = block.fc1(x).chunk(2, dim=-1)
    torch.testing.assert_close(gate, mlp.gate_proj(x))
    torch.testing.assert_close(opened, mlp.up_proj(x))
    assert mlp.up_proj.bias is None
    assert not block.out.bias.any()
