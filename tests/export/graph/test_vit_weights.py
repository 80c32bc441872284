"""The canonical transformer against the unpatched transformers modules, and each rewrite by itself."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from clip_export.encoders.image import Encoder
from clip_export.graph.operators import ACTIVATIONS, STANDARD
from clip_export.graph.vit_weights import canonical_vit
from clip_toolkit.errors import EncoderError
from clip_toolkit.images.preprocess import normalise
from tiny_models import CHECKPOINTS, SIZE

pytestmark = pytest.mark.transformers

EncoderOf = Callable[..., Encoder]
FEATURES = [(name, "pooled") for name in CHECKPOINTS]
FEATURES += [(name, "projected") for name in CHECKPOINTS if name != "blip"]


def random_pixels(batch: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (batch, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def pixel_values(encoder: Encoder, pixels: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(normalise(pixels.numpy(), encoder.preprocessing))


@pytest.mark.parametrize(("name", "feature"), FEATURES)
def test_canonical_transformer_equals_the_transformers_model(encoder: EncoderOf, name: str, feature: str):
    used, pixels = encoder(name, feature), random_pixels()
    expected = used.features(pixel_values(used, pixels))
    assert expected.std() > 0.05  # the tiny model says something
    torch.testing.assert_close(canonical_vit(used)(pixels), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["clip", "siglip", "blip"])
def test_taking_pixel_values_folds_nothing(encoder: EncoderOf, name: str):
    used = encoder(name)
    values = pixel_values(used, random_pixels())
    torch.testing.assert_close(
        canonical_vit(used, takes_pixel_values=True)(values), used.features(values), atol=2e-5, rtol=1e-5
    )


def test_folded_patch_convolution_equals_normalising_first(encoder: EncoderOf):
    used, pixels = encoder("blip"), random_pixels()
    planes = pixels.permute(0, 3, 1, 2).float()
    expected = used.tower.embeddings.patch_embedding(pixel_values(used, pixels))
    torch.testing.assert_close(canonical_vit(used).patch(planes), expected, atol=1e-5, rtol=1e-5)


def test_class_token_holds_its_position(encoder: EncoderOf):
    embeddings = encoder("clip").tower.embeddings
    vit = canonical_vit(encoder("clip"))
    positions = embeddings.position_embedding.weight
    assert torch.equal(vit.positions[0, 0], embeddings.class_embedding + positions[0])
    assert torch.equal(vit.positions[0, 1:], positions[1:])


def test_packed_projection_equals_three(encoder: EncoderOf):
    attention = encoder("clip").tower.encoder.layers[0].self_attn
    x = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(2))
    expected = [getattr(attention, f"{name}_proj")(x) for name in "qkv"]
    packed = canonical_vit(encoder("clip")).blocks[0].qkv(x).chunk(3, dim=-1)
    for ours, theirs in zip(packed, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["clip", "blip"])
def test_last_block_computes_the_class_token_alone(encoder: EncoderOf, name: str):
    last = canonical_vit(encoder(name)).blocks[-1]
    assert last(torch.randn(2, 17, 48)).shape == (2, 1, 48)
    assert not hasattr(last, "qkv")


def test_attention_pooling_keeps_every_token(encoder: EncoderOf):
    vit = canonical_vit(encoder("siglip"))
    assert vit.blocks[-1](torch.randn(2, 16, 48)).shape == (2, 16, 48)


def test_probe_is_projected_beforehand(encoder: EncoderOf):
    head = encoder("siglip").tower.head
    weight, bias = head.attention.in_proj_weight[:48], head.attention.in_proj_bias[:48]
    expected = torch.nn.functional.linear(head.probe, weight, bias)
    torch.testing.assert_close(canonical_vit(encoder("siglip")).pool.query.data, expected, atol=1e-6, rtol=1e-5)


def test_blip_applies_its_last_norm_twice_when_pooled_and_once_when_projected(encoder: EncoderOf):
    assert canonical_vit(encoder("blip-retrieval")).config.post_norms == 2
    assert canonical_vit(encoder("blip-retrieval", "projected")).config.post_norms == 1


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_transformers(name: str):
    from transformers.activations import ACT2FN

    x = torch.linspace(-6, 6, 101)
    torch.testing.assert_close(STANDARD.activation(name)(x), ACT2FN[name](x), atol=1e-6, rtol=1e-6)


def test_unknown_activation_is_refused_by_name(encoder: EncoderOf):
    used = encoder("clip")
    strange = replace(used, tower=torch.nn.Module())
    strange.tower.config = type(used.tower.config)(**used.tower.config.to_dict() | {"hidden_act": "swish7"})
    with pytest.raises(EncoderError, match=r"swish7.*quick_gelu"):
        canonical_vit(strange)
