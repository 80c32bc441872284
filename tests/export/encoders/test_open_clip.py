"""Checkpoints in OpenCLIP's own format: the same features as the transformers model, and its own pixels."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder, text_features
from clip_export.graph.preprocessing import GraphPreprocessor, preprocess_graph
from clip_export.graph.vit_weights import canonical_vit
from clip_export.heads.files import TrainedHead
from clip_export.heads.tuned_encoder import referenced_encoder, save_with_encoder
from clip_toolkit.errors import EncoderError
from clip_toolkit.images.preprocess import crop_offset, preprocess
from tiny_open_clip import MODEL, SIGLIP, published, siglip_weights

pytestmark = pytest.mark.transformers

CheckpointOf = Callable[[str], Path]


@pytest.fixture
def folder(checkpoint: CheckpointOf, tmp_path: Path) -> Path:
    """The tiny CLIP, with QuickGELU and weights that show it, as OpenCLIP publishes checkpoints."""
    path = tmp_path / "open"
    path.mkdir()
    save_file(published(load_file(checkpoint("clip") / "model.safetensors")), path / "open_clip_model.safetensors")
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (path / name).write_bytes((checkpoint("clip") / name).read_bytes())
    write(path)
    return path


def write(folder: Path, model: dict | None = None, **preprocess_cfg: object) -> None:
    content = {"model_cfg": MODEL | (model or {}), "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}}
    content["preprocess_cfg"] |= preprocess_cfg
    (folder / "open_clip_config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("feature", ["pooled", "projected"])
def test_image_features_are_those_of_the_transformers_model(checkpoint: CheckpointOf, folder: Path, feature: str):
    values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ours, theirs = (Encoder.from_pretrained(str(path), feature=feature) for path in (folder, checkpoint("clip")))
    torch.testing.assert_close(ours.features(values), theirs.features(values), atol=1e-6, rtol=1e-6)
    write(folder, {"quick_gelu": False})
    other = Encoder.from_pretrained(str(folder), feature=feature).features(values)
    assert (other - theirs.features(values)).abs().max() > 1e-3  # so that the weights tell activations apart


def test_text_features_are_those_of_the_transformers_model(checkpoint: CheckpointOf, folder: Path):
    texts = ["a red circle", "blue", ""]
    ours, theirs = (TextEncoder.from_pretrained(str(path)) for path in (folder, checkpoint("clip")))
    torch.testing.assert_close(text_features(ours, texts), text_features(theirs, texts), atol=1e-6, rtol=1e-6)
    assert ours.logit_scale == theirs.logit_scale


def test_a_bare_dictionary_of_pytorch_is_read_too(folder: Path):
    before = Encoder.from_pretrained(str(folder))
    tensors = load_file(folder / "open_clip_model.safetensors")
    torch.save({"state_dict": tensors}, folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_model.safetensors").unlink()
    after = Encoder.from_pretrained(str(folder))
    assert all(torch.equal(*pair) for pair in zip(before.tower.parameters(), after.tower.parameters(), strict=True))


def test_configuration_and_weights_stand_in_the_digest(folder: Path):
    before = Encoder.from_pretrained(str(folder)).revision
    write(folder, interpolation="bilinear")
    assert Encoder.from_pretrained(str(folder)).revision != before


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [((35, 32), (2, 0)), ((37, 32), (2, 0)), ((32, 33), (0, 0)), ((32, 39), (0, 4)), ((61, 97), None)],
)
def test_pixels_are_torchvisions_three_ways(folder: Path, shape: tuple[int, int], offsets: tuple[int, int] | None):
    encoder = Encoder.from_pretrained(str(folder))
    image = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    rule = encoder.preprocessing
    pixels = preprocess(image, rule)
    (values,) = encoder.processor(images=[Image.fromarray(image)])["pixel_values"].numpy()
    expected = (pixels / np.float32(255) - np.float32(rule.mean)) / np.float32(rule.std)
    np.testing.assert_allclose(values.transpose(1, 2, 0), expected, atol=1e-6)
    in_graph = GraphPreprocessor(preprocess_graph(rule))(image)
    assert np.abs(in_graph.astype(int) - pixels).max() <= (2 if offsets is None else 0)
    if offsets is not None:
        assert tuple(crop_offset(side, 32, "half_even") for side in shape) == offsets
        top, left = offsets
        assert np.array_equal(pixels, image[top : top + 32, left : left + 32])


PADDED = {
    "portrait": ((61, 97), (6, 0, 20, 32)),
    "half of a pixel more": ((64, 6), (0, 14, 32, 3)),
    "a rounded half": ((64, 5), (0, 15, 32, 2)),
    "a line": ((1, 90), (15, 0, 1, 32)),
    "its own size": ((32, 32), (0, 0, 32, 32)),
}


@pytest.mark.parametrize(("shape", "box"), PADDED.values(), ids=PADDED.keys())
def test_longest_adds_borders_three_ways(folder: Path, shape: tuple[int, int], box: tuple[int, ...]):
    write(folder, resize_mode="longest", fill_color=7)
    encoder = Encoder.from_pretrained(str(folder))
    image = np.random.default_rng(2).integers(8, 256, (*shape, 3), np.uint8)
    pixels = preprocess(image, encoder.preprocessing)
    top, left, height, width = box
    inside = np.zeros((32, 32), bool)
    inside[top : top + height, left : left + width] = True
    assert np.array_equal((pixels != 7).any(axis=2), inside)
    (values,) = encoder.processor(images=[Image.fromarray(image)])["pixel_values"].numpy()
    rule = encoder.preprocessing
    expected = (pixels / np.float32(255) - np.float32(rule.mean)) / np.float32(rule.std)
    np.testing.assert_allclose(values.transpose(1, 2, 0), expected, atol=1e-6)
    in_graph = GraphPreprocessor(preprocess_graph(rule))(image)
    assert np.abs(in_graph.astype(int) - pixels).max() <= 2


def test_the_width_of_heads_and_a_pair_as_size_are_followed(folder: Path):
    values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    twelve = Encoder.from_pretrained(str(folder)).features(values)
    write(folder, vision(image_size=[32, 32], head_width=24), size=[32, 32])
    found = Encoder.from_pretrained(str(folder))
    assert found.tower.config.num_attention_heads == 2
    assert (found.features(values) - twelve).abs().max() > 1e-3
    canonical = canonical_vit(found, takes_pixel_values=True)(values)
    torch.testing.assert_close(canonical, found.features(values), atol=1e-5, rtol=1e-5)


def test_what_open_clip_does_otherwise_is_said(checkpoint: CheckpointOf, folder: Path):
    (said,) = Encoder.from_pretrained(str(folder)).notes
    assert "palette or transparency become RGB before the resize" in said
    assert not list(Encoder.from_pretrained(str(checkpoint("clip"))).notes)


def test_squash_and_bilinear(folder: Path):
    write(folder, resize_mode="squash", interpolation="bilinear")
    rule = Encoder.from_pretrained(str(folder)).preprocessing
    assert (rule.mode, rule.size, rule.resample, rule.mean) == ("squash", 32, "bilinear", (0.5, 0.4, 0.3))


def test_a_fine_tuned_one_is_written_and_read(folder: Path, tmp_path: Path, head_for: Callable[[Encoder], TrainedHead]):
    encoder = Encoder.from_pretrained(str(folder))
    with torch.no_grad():
        encoder.tower.post_layernorm.bias += 0.1
    head = save_with_encoder(head_for(encoder), encoder, tmp_path / "head.pt")
    loaded = referenced_encoder(tmp_path / "head.pt", head.encoder)
    values = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded.features(values), encoder.features(values))
    assert loaded.preprocessing == encoder.preprocessing


def test_siglip_of_timm(checkpoint: CheckpointOf, folder: Path):
    """Of 12 heads, as the name says; transformers' tiny one has 4."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    weights = load_file(checkpoint("siglip") / "model.safetensors")
    save_file(siglip_weights(weights), folder / "open_clip_model.safetensors")
    write(folder, {"vision_cfg": SIGLIP, "embed_dim": 48, "custom_text": True})
    settings = json.loads((checkpoint("siglip") / "config.json").read_text())["vision_config"]
    config = SiglipVisionConfig(**settings | {"num_attention_heads": 12, "hidden_act": "gelu"})
    tower = {name: item for name, item in weights.items() if name.startswith("vision_model.")}
    theirs = SiglipVisionModel.from_pretrained(None, config=config, state_dict=tower).eval()
    values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ours = Encoder.from_pretrained(str(folder)).features(values)
    torch.testing.assert_close(ours, theirs(values).pooler_output, atol=1e-5, rtol=1e-5)
    with pytest.raises(EncoderError, match="SiglipVisionModel has no text tower"):
        TextEncoder.from_pretrained(str(folder))
    write(folder, {"vision_cfg": SIGLIP, "embed_dim": 48, "text_cfg": {"hf_model_name": "bert-base-uncased"}})
    with pytest.raises(EncoderError, match=r"its text tower is that of bert-base-uncased \(text_cfg\.hf_model_name\)"):
        TextEncoder.from_pretrained(str(folder))


def vision(**changes: object) -> dict:
    return {"vision_cfg": MODEL["vision_cfg"] | changes}


REFUSED = {
    "mean of tokens": (vision(pool_type="avg"), {}, "pool_type is 'avg'"),
    "wider": (vision(width=64), {}, "width is 64, but the weights have 48"),
    "deeper": (vision(layers=4), {}, "layers is 4, but the weights have 3"),
    "no norm before": (vision(no_ln_pre=True), {}, "no_ln_pre"),
    "layer scale": (vision(ls_init_value=1e-4), {}, "ls_init_value"),
    "a key of the future": (vision(own_switch=3), {}, "own_switch"),
    "oblong": (vision(image_size=[32, 64]), {}, "not square"),
    "colour of the borders": ({}, {"resize_mode": "longest", "fill_color": [9, 9, 9]}, "fill_color is"),
    "timm's crop": ({}, {"crop_pct": 0.9}, "crop_pct"),
    "interpolation": ({}, {"interpolation": "lanczos"}, "lanczos"),
    "another size": ({}, {"size": 64}, "takes 32"),
    "a step of the future": ({}, {"own_step": 1}, "own_step"),
    "other weights": (vision(image_size=64), {}, r"\[17, 48\] in the weights.*\[65, 48\]"),
}


@pytest.mark.parametrize(("model", "preprocessing", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_read_is_refused_by_name(folder: Path, model: dict, preprocessing: dict, said: str):
    write(folder, model, **preprocessing)
    with pytest.raises(EncoderError, match=said):
        Encoder.from_pretrained(str(folder))


def test_weights_of_a_switch_that_is_not_told_are_refused(folder: Path):
    path = folder / "open_clip_model.safetensors"
    save_file(load_file(path) | {"visual.transformer.resblocks.0.ls_1.gamma": torch.ones(48)}, path)
    with pytest.raises(EncoderError, match=r"ls_1\.gamma, which none"):
        Encoder.from_pretrained(str(folder))


def test_missing_preprocessing_is_not_guessed(folder: Path):
    path = folder / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": json.loads(path.read_text())["model_cfg"]}))
    with pytest.raises(EncoderError, match="no preprocess_cfg"):
        Encoder.from_pretrained(str(folder))
