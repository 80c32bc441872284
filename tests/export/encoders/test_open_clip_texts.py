"""Text towers in OpenCLIP's format, and CLIPA, which has no model in transformers to be compared with."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder, text_features, tokenised
from clip_export.encoders.tokenizer import tokenizer_spec
from clip_export.graph.text_weights import canonical_text
from clip_export.graph.vit_weights import canonical_vit
from clip_toolkit.errors import EncoderError
from tiny_models import save_checkpoint
from tiny_open_clip import clipa_weights, save_open_clip

pytestmark = pytest.mark.transformers

TEXTS = ["a Red circle", "blue_square,  of the photo!", "", "the " * 40]


def test_siglips_text_feature_is_that_of_the_transformers_model(tmp_path: Path):
    ours = TextEncoder.from_pretrained(str(save_open_clip("siglip", tmp_path / "open")))
    theirs = TextEncoder.from_pretrained(str(save_checkpoint("siglip2", tmp_path / "theirs")))
    plain = ["a red circle", "blue square"]  # without what OpenCLIP alone takes out
    torch.testing.assert_close(text_features(ours, plain), text_features(theirs, plain), atol=1e-6, rtol=1e-6)
    assert (ours.logit_scale, ours.logit_bias) == (theirs.logit_scale, theirs.logit_bias)
    tokens = tokenised(ours, TEXTS)["input_ids"]
    cleaned = ["a red circle", "blue square of the photo", "", "the " * 40]
    assert torch.equal(tokens, tokenised(theirs, [text.strip() for text in cleaned])["input_ids"])


def reference(weights: dict[str, torch.Tensor], tower: str, x: torch.Tensor, heads: int = 4) -> torch.Tensor:
    """Run the two blocks of a tower with PyTorch's own layers."""
    names = {"ln_": "norm", "attn.": "self_attn.", "mlp.c_fc": "linear1", "mlp.c_proj": "linear2"}
    for i in range(2):
        layer = nn.TransformerEncoderLayer(
            x.shape[2], heads, 2 * x.shape[2], 0.0, "gelu", batch_first=True, norm_first=True
        ).eval()
        prefix = f"{tower}resblocks.{i}."
        block = {name.removeprefix(prefix): item for name, item in weights.items() if name.startswith(prefix)}
        for theirs, ours in names.items():
            block = {name.replace(theirs, ours): item for name, item in block.items()}
        layer.load_state_dict(block)
        x = layer(x)
    return x


def norm(weights: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def test_clipas_image_feature_is_the_mean_of_the_patches(tmp_path: Path):
    encoder = Encoder.from_pretrained(str(save_open_clip("clipa", tmp_path / "open")), feature="projected")
    weights, values = clipa_weights(), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    x = nn.functional.conv2d(values, weights["visual.conv1.weight"], stride=8).flatten(2).transpose(1, 2)
    x = torch.cat([weights["visual.class_embedding"].expand(2, 1, -1), x], 1) + weights["visual.positional_embedding"]
    with torch.inference_mode():
        pooled = reference(weights, "visual.transformer.", x)[:, 1:].mean(1)
        expected = norm(weights, "visual.ln_post", pooled) @ weights["visual.proj"]
        torch.testing.assert_close(encoder.features(values), expected, atol=1e-5, rtol=1e-5)
        canonical = canonical_vit(encoder, takes_pixel_values=True)(values)
    torch.testing.assert_close(canonical, expected, atol=1e-5, rtol=1e-5)


def test_clipas_text_feature_is_that_of_its_last_token(tmp_path: Path):
    tower = TextEncoder.from_pretrained(str(save_open_clip("clipa", tmp_path / "open")))
    tokens, weights = tokenised(tower, TEXTS)["input_ids"], clipa_weights()
    assert tokens.shape == (4, 12)
    assert tokens[2].tolist() == [2, *[0] * 11]  # what closes a text elsewhere is OpenCLIP's padding
    assert tokens[3].tolist()[-1] == 0
    assert tokenizer_spec(tower).pad_to_context
    x = weights["token_embedding.weight"][tokens] + weights["positional_embedding"]
    with torch.inference_mode():
        last = reference(weights, "transformer.", x)[:, -1]
        expected = norm(weights, "ln_final", last) @ weights["text_projection"]
        torch.testing.assert_close(text_features(tower, TEXTS), expected, atol=1e-5, rtol=1e-5)
        canonical = canonical_text(tower)(tokens, torch.ones_like(tokens))
    torch.testing.assert_close(canonical, expected, atol=1e-5, rtol=1e-5)


def test_what_open_clip_does_to_texts_otherwise_is_said(tmp_path: Path):
    (said,) = TextEncoder.from_pretrained(str(save_open_clip("clip", tmp_path / "open"))).notes
    assert "HTML entities" in said
    assert not TextEncoder.from_pretrained(str(save_checkpoint("clip", tmp_path / "theirs"))).notes


REFUSED = {
    "another end": ("clip", {"pool_type": "eos"}, "pool_type is 'eos'"),
    "own padding": ("siglip", {"use_pad_mask": True}, "use_pad_mask"),
    "causal": ("siglip", {"no_causal_mask": False}, "no_causal_mask is False, and only True"),
    "a step of the future": ("siglip", {"tokenizer_kwargs": {"own": 1}}, "tokenizer_kwargs"),
    "an activation of the future": ("siglip", {"act_kwargs": {"own": 1}}, "act_kwargs"),
    "of another model": ("siglip", {"context_length": 64}, "context_length is 64, but the weights have 24"),
    "wider": ("clip", {"width": 64}, "width is 64, but the weights have 32"),
}


@pytest.mark.parametrize(("kind", "changes", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_a_text_tower_that_is_not_read_is_refused_by_name(kind: str, changes: dict, said: str, tmp_path: Path):
    path = save_open_clip(kind, tmp_path / "open") / "open_clip_config.json"
    content = json.loads(path.read_text())
    content["model_cfg"]["text_cfg"] |= changes
    path.write_text(json.dumps(content))
    with pytest.raises(EncoderError, match=said):
        TextEncoder.from_pretrained(str(path.parent))


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("siglip", "text.text_projection.weight", "embed_dim is 48, but the weights have 64"),
        ("clip", "text_projection", r"text_projection.weight is \[64, 32\] in the weights.*makes it \[24, 32\]"),
    ],
)
def test_a_text_tower_of_another_checkpoint_is_refused(kind: str, name: str, said: str, tmp_path: Path):
    path = save_open_clip(kind, tmp_path / "open") / "open_clip_model.safetensors"
    shape = (32, 64) if kind == "clip" else (64, 32)
    save_file(load_file(path) | {name: torch.ones(shape)}, path)
    with pytest.raises(EncoderError, match=said):
        TextEncoder.from_pretrained(str(path.parent))
