"""Loading encoders, and saying clearly why one cannot be loaded."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_toolkit.errors import EncoderError
from tiny_models import CHECKPOINTS

pytestmark = pytest.mark.transformers

Checkpoint = Callable[[str], Path]


@pytest.fixture
def copy(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A CLIP checkpoint to damage."""
    return Path(shutil.copytree(checkpoint("clip"), tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_loads_every_family_frozen_and_in_float32(encoder: Callable[..., Encoder], name: str):
    used = encoder(name)
    assert not used.tower.training
    assert {parameter.dtype for parameter in used.tower.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in used.tower.parameters())


def test_pooled_and_projected_features_are_those_of_transformers(checkpoint: Checkpoint):
    from transformers import CLIPModel

    values = torch.randn(2, 3, 32, 32)
    model = CLIPModel.from_pretrained(checkpoint("clip"), dtype=torch.float32).eval()
    with torch.inference_mode():
        pooled = model.vision_model(pixel_values=values).pooler_output
        projected = model.visual_projection(pooled)
        assert torch.equal(Encoder.from_pretrained(str(checkpoint("clip"))).features(values), pooled)
        ours = Encoder.from_pretrained(str(checkpoint("clip")), feature="projected").features(values)
    assert torch.equal(ours, projected)


def test_half_precision_checkpoints_are_computed_in_float32(copy: Path):
    weights = {name: tensor.half() for name, tensor in load_file(copy / "model.safetensors").items()}
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    edit(copy / "config.json", torch_dtype="float16", dtype="float16")
    assert next(Encoder.from_pretrained(str(copy)).tower.parameters()).dtype == torch.float32


def test_the_spec_keeps_a_local_folders_name_only(checkpoint: Checkpoint):
    spec = Encoder.from_pretrained(str(checkpoint("clip"))).spec()
    assert (spec.id, spec.dim) == ("clip", 48)


def test_both_towers_of_a_local_folder_have_the_revision_of_its_content(checkpoint: Checkpoint, copy: Path):
    spec = Encoder.from_pretrained(str(copy), feature="projected").spec()
    assert re.fullmatch("[0-9a-f]{64}", spec.revision)
    assert TextEncoder.from_pretrained(str(copy)).spec() == spec
    assert Encoder.from_pretrained(str(checkpoint("clip"))).revision == spec.revision  # wherever it lies
    weights = load_file(copy / "model.safetensors")
    weights["logit_scale"] += 1
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    other = Encoder.from_pretrained(str(copy), feature="projected").spec()
    assert other.revision != spec.revision
    assert TextEncoder.from_pretrained(str(copy)).spec() == other


def test_missing_folder_and_unknown_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EncoderError, match=r"no local folder.*local folder with config\.json"):
        Encoder.from_pretrained(str(tmp_path / "nothing"))


def test_folder_without_processor(copy: Path):
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(EncoderError, match="preprocessor_config"):
        Encoder.from_pretrained(str(copy))


def test_unsupported_family_names_the_supported(copy: Path):
    edit(copy / "config.json", model_type="bert", architectures=["BertModel"])
    with pytest.raises(EncoderError, match=r"bert.*clip.*siglip.*blip"):
        Encoder.from_pretrained(str(copy))


def test_unsupported_architecture_of_a_known_family(copy: Path):
    edit(copy / "config.json", architectures=["CLIPSegModel"])
    with pytest.raises(EncoderError, match="CLIPSegModel"):
        Encoder.from_pretrained(str(copy))


def test_a_configuration_without_architecture_means_the_familys_own(copy: Path):
    edit(copy / "config.json", architectures=None)
    assert Encoder.from_pretrained(str(copy)).dim == 48


def test_missing_weights_are_not_filled_with_random_ones(copy: Path):
    weights = load_file(copy / "model.safetensors")
    del weights["vision_model.encoder.layers.1.mlp.fc1.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(EncoderError, match=r"lacks 1 .*fc1\.weight"):
        Encoder.from_pretrained(str(copy))


def test_damaged_weights(copy: Path):
    (copy / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        Encoder.from_pretrained(str(copy))


def test_pickled_modules_are_refused_in_words(copy: Path):
    (copy / "model.safetensors").unlink()
    torch.save(torch.nn.Linear(2, 2), copy / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"got torch\.nn\.modules\.linear\.Linear, a Python object.* state_dict"):
        Encoder.from_pretrained(str(copy))


def test_tower_and_processor_must_agree_on_the_size(copy: Path):
    edit(copy / "preprocessor_config.json", size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    with pytest.raises(EncoderError, match=r"takes 32.*makes 64"):
        Encoder.from_pretrained(str(copy))


def test_projection_that_the_checkpoint_does_not_have(checkpoint: Checkpoint):
    with pytest.raises(EncoderError, match="no image projection"):
        Encoder.from_pretrained(str(checkpoint("blip")), feature="projected")


def test_unknown_feature(checkpoint: Checkpoint):
    with pytest.raises(EncoderError, match="pooled, projected"):
        Encoder.from_pretrained(str(checkpoint("clip")), feature="cls")
