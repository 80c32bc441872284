"""OpenCLIP's models with image towers of timm's: the answers of open_clip itself, in every form of the file."""

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder, text_features
from clip_export.graph.tracing import trace
from clip_export.quantization.layers.linears import find_linears, with_plain_linears
from clip_export.training.finetuning.halves import check_blocks
from clip_export.tuning.subject import read_encoders
from clip_toolkit.errors import EncoderError, MissingDependencyError
from tiny_open_clip import save_open_clip

CheckpointOf = Callable[[str], Path]

TOWERS = ("mobileclip", "eva02", "pe-core")
TEXTS = ["a red circle", "Blue!", "", "!! a & b", "very " * 40]


def changed(source: Path, folder: Path, **vision: object) -> Path:
    """Copy a checkpoint, and change what it says of its image tower."""
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    content = json.loads((folder / "open_clip_config.json").read_text())
    content["model_cfg"]["vision_cfg"] |= vision
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("name", TOWERS)
def test_features_are_those_of_open_clip(checkpoint: CheckpointOf, name: str):
    folder = checkpoint(name)  # which skips the test where open_clip is missing
    from open_clip.tokenizer import SimpleTokenizer

    from tiny_timm import SIZE, open_clip_model

    theirs, values = open_clip_model(name), torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    ours = Encoder.from_pretrained(str(folder))
    torch.testing.assert_close(ours.features(values), theirs.encode_image(values), atol=1e-5, rtol=1e-5)
    text = TextEncoder.from_pretrained(str(folder))
    ids = text.tokenizer(TEXTS, padding="max_length", max_length=text.context, truncation=True)["input_ids"]
    torch.testing.assert_close(text_features(text, TEXTS), theirs.encode_text(torch.tensor(ids)), atol=1e-5, rtol=1e-5)
    assert all(set(row[row.index(513) + 1 :]) <= {0} for row in ids)  # as open_clip pads behind the end mark
    assert SimpleTokenizer(context_length=9)("")[0, 2:].tolist() == [0] * 7


def test_the_branches_of_convolutions_are_added_up(encoder: Callable[..., Encoder]):
    found = encoder("mobileclip")
    traced = found.family.image.traced(found.tower)
    values = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(traced(values), found.features(values), atol=1e-4, rtol=1e-4)
    assert sum(1 for _ in traced.modules()) < sum(1 for _ in found.tower.modules())


def test_building_leaves_the_random_numbers_alone(checkpoint: CheckpointOf):
    folder = str(checkpoint("eva02"))
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    Encoder.from_pretrained(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_images_alone(checkpoint: CheckpointOf, tmp_path: Path):
    folder = changed(checkpoint("eva02"), tmp_path)
    weights = load_file(folder / "open_clip_model.safetensors")
    image = {name: tensor for name, tensor in weights.items() if name.startswith("visual.")}
    save_file(image, folder / "open_clip_model.safetensors")
    assert Encoder.from_pretrained(str(folder)).dim == 24
    with pytest.raises(EncoderError, match="TimmTower has no text tower"):
        TextEncoder.from_pretrained(str(folder))


REFUSED = {
    "unknown": ({"timm_model_name": "resnet_of_tomorrow"}, r"'resnet_of_tomorrow' is not read.*installed timm"),
    "an address": ({"timm_model_name": "hf-hub:timm/vit_base_patch16_224"}, r"'hf-hub:timm.* is not read"),
    "a folder": ({"timm_model_name": "local-dir:/tmp"}, "'local-dir:/tmp' is not read"),
    "pooling": ({"timm_pool": "of tomorrow"}, "timm_pool 'of tomorrow'"),
    "projection": ({"timm_proj": "cubic"}, "timm_proj 'cubic'"),
    "a key of the future": ({"own_switch": 3}, "own_switch is 3, which is not supported"),
    "more weights": (
        {"timm_model_name": "tiny_pe_core", "timm_pool": "map"},
        r"k_proj.weight, which none of the image",
    ),
    "another size": ({"image_size": 80}, "cannot take images of 80 pixels"),
    "code": ({"auto_map": {"AutoModel": "model.Own"}}, "auto_map"),
}


@pytest.mark.parametrize(("vision", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_built_is_refused(checkpoint: CheckpointOf, tmp_path: Path, vision: dict, said: str):
    with pytest.raises(EncoderError, match=said):
        Encoder.from_pretrained(str(changed(checkpoint("eva02"), tmp_path, **vision)))


def test_what_needs_blocks_is_refused(checkpoint: CheckpointOf, encoder: Callable[..., Encoder]):
    folder = str(checkpoint("mobileclip"))
    with pytest.raises(EncoderError, match=r"timm encoders have no mean@1\. Use --feature pooled"):
        Encoder.from_pretrained(folder, feature="mean@1")
    with pytest.raises(EncoderError, match="timm encoders cannot be fine-tuned"):
        check_blocks(encoder("mobileclip"), 1)
    with pytest.raises(EncoderError, match=r"timm encoders have no depths to choose from\. Use clip-train"):
        list(read_encoders([folder], ()))


def test_a_missing_timm_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = changed(save_open_clip("clip", tmp_path / "clip"), tmp_path, timm_model_name="convnext_base")
    monkeypatch.setattr("clip_export.extra.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"open_clip, timm.*clip-toolkit\[export,cpu,openclip\]"):
        Encoder.from_pretrained(str(folder))


class Untraceable(torch.nn.Module):
    """Asks for the values of its input, as no graph can."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values if values.sum() > 0 else -values


def test_a_tower_that_does_not_trace_is_refused():
    with pytest.raises(EncoderError, match=r"PyTorch .* cannot trace the network to ONNX \(.*Use another encoder"):
        trace(Untraceable(), {"values": torch.ones(3, 2)}, ["made"])


class Twice(torch.nn.Module):
    """Two layers and two convolutions that one module computes itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (torch.nn.Parameter(torch.randn(4, 4)) for _ in range(2))
        self.kernels = torch.nn.Parameter(torch.randn(2, 4, 4, 1))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        for kernel in self.kernels:
            values = torch.nn.functional.conv1d(values.mT, kernel).mT
        return torch.relu(values @ self.first) @ self.second


def test_layers_of_one_module_are_told_apart():
    """Their constants are called after modules, and one must not take the other's."""
    from clip_toolkit.runtime.session import open_graph

    network = torch.nn.Sequential(OrderedDict(vit=torch.nn.Sequential(OrderedDict(tower=Twice()))))
    values = torch.randn(3, 5, 4)
    plain = with_plain_linears(trace(network, {"values": values}, ["made"]))
    assert list(find_linears(plain)) == ["vit.tower", "vit.tower.2"]
    (made,) = open_graph(plain.SerializeToString()).run(["made"], {"values": values.numpy()})
    np.testing.assert_allclose(made, network(values).detach().numpy(), atol=1e-5)
