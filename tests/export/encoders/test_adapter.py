"""Low-rank adapters: merged exactly, part of the digest, and refused where they do not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_toolkit.errors import EncoderError

pytestmark = pytest.mark.transformers

CheckpointOf = Callable[[str], Path]
ADAPTED = "vision_model.encoder.layers.0.self_attn.q_proj"


@pytest.fixture
def adapter(checkpoint: CheckpointOf, tmp_path: Path) -> Path:
    """An adapter of the first query projection, as peft saves it."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    generator = torch.Generator().manual_seed(5)
    factors = {"A": torch.randn(4, 48, generator=generator), "B": torch.randn(48, 4, generator=generator)}
    named = {f"base_model.model.{ADAPTED}.lora_{name}.weight": tensor for name, tensor in factors.items()}
    save_file(named, folder / "adapter_model.safetensors", {"format": "pt"})
    write(folder, base_model_name_or_path=str(checkpoint("clip")))
    return folder


def write(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    content = json.loads(path.read_text()) if path.exists() else {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    path.write_text(json.dumps(content | changes))


def change(folder: Path) -> torch.Tensor:
    tensors = load_file(folder / "adapter_model.safetensors")
    down, up = (tensors[f"base_model.model.{ADAPTED}.lora_{name}.weight"] for name in "AB")
    return up @ down


def weight(encoder: str) -> torch.Tensor:
    return Encoder.from_pretrained(encoder).tower.get_submodule(ADAPTED.removeprefix("vision_model.")).weight


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({}, 8 / 4),
        ({"use_rslora": True}, 8 / 4**0.5),
        ({"alpha_pattern": {"q_proj": 2}}, 2 / 4),
        ({"alpha_pattern": {"k_proj": 2}}, 8 / 4),
    ],
)
def test_adapter_is_merged_at_its_scale(checkpoint: CheckpointOf, adapter: Path, options: dict, scale: float):
    write(adapter, **options)
    torch.testing.assert_close(weight(str(adapter)), weight(str(checkpoint("clip"))) + scale * change(adapter))


@pytest.mark.filterwarnings("ignore")  # peft and transformers warn of each other
def test_merging_equals_peft(checkpoint: CheckpointOf, adapter: Path):
    peft = pytest.importorskip("peft")
    from transformers import CLIPModel

    write(adapter, target_modules=["q_proj"], layers_to_transform=[0])
    merged = peft.PeftModel.from_pretrained(CLIPModel.from_pretrained(checkpoint("clip")), adapter).merge_and_unload()
    torch.testing.assert_close(weight(str(adapter)), merged.get_submodule(ADAPTED).weight)


def test_an_adapted_checkpoint_has_a_digest_of_its_own_and_its_bases_tokenizer(
    checkpoint: CheckpointOf, adapter: Path, tmp_path: Path
):
    used = Encoder.from_pretrained(str(adapter), feature="projected")
    assert used.revision != Encoder.from_pretrained(str(checkpoint("clip"))).revision
    assert TextEncoder.from_pretrained(str(adapter)).spec() == used.spec()
    base = Encoder.from_pretrained(str(checkpoint("clip")))
    assert used.spec().base == f"clip@{base.revision}"
    assert base.spec().base is None
    other = Path(shutil.copytree(checkpoint("clip"), tmp_path / "base"))
    tensors = load_file(other / "model.safetensors")
    save_file(tensors | {"logit_scale": tensors["logit_scale"] + 1}, other / "model.safetensors", {"format": "pt"})
    write(adapter, base_model_name_or_path=str(other))
    assert Encoder.from_pretrained(str(adapter)).revision != used.revision


def test_an_adapter_beside_whole_weights_is_not_dropped(checkpoint: CheckpointOf, adapter: Path):
    shutil.copytree(checkpoint("clip"), adapter, dirs_exist_ok=True)
    with pytest.raises(EncoderError, match="nothing says whether the weights contain it"):
        Encoder.from_pretrained(str(adapter))


def test_an_adapter_of_another_checkpoint_is_refused_with_both_shapes(adapter: Path):
    path = adapter / "adapter_model.safetensors"
    save_file(
        {name: tensor[:, :-1].contiguous() if "_A" in name else tensor for name, tensor in load_file(path).items()},
        path,
    )
    with pytest.raises(EncoderError, match=r"by \[48, 47\], which is \[48, 48\] there.*another checkpoint"):
        Encoder.from_pretrained(str(adapter))


REFUSED = {
    "another kind": ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    "weights decomposed": ({"use_dora": True}, "use_dora"),
    "trained biases": ({"bias": "all"}, "bias is 'all'"),
    "transposed": ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    "no base": ({"base_model_name_or_path": None}, "base_model_name_or_path"),
    "base that is gone": ({"base_model_name_or_path": "/nowhere/at/all"}, "/nowhere/at/all"),
    "no scale": ({"lora_alpha": None}, "lora_alpha"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_adapters_that_are_not_understood_are_refused(adapter: Path, options: dict, said: str):
    write(adapter, **options)
    with pytest.raises(EncoderError, match=said):
        Encoder.from_pretrained(str(adapter))


def test_a_trained_module_beside_the_factors_is_not_dropped(adapter: Path):
    path = adapter / "adapter_model.safetensors"
    save_file(load_file(path) | {"base_model.model.visual_projection.weight": torch.zeros(24, 48)}, path)
    with pytest.raises(EncoderError, match=r"visual_projection.*merge_and_unload"):
        Encoder.from_pretrained(str(adapter))
