"""Checkpoints in every form that people keep them in: what is read, what stands for it, and what is refused."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clip_export.encoders.checkpoint import Checkpoint
from clip_export.encoders.digest import content_digest
from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder
from clip_toolkit.errors import EncoderError

pytestmark = pytest.mark.transformers

CheckpointOf = Callable[[str], Path]
WEIGHTS = "model.safetensors"


@pytest.fixture
def copy(checkpoint: CheckpointOf, tmp_path: Path) -> Path:
    """A CLIP checkpoint to change, whose name would tell transformers what it is."""
    return Path(shutil.copytree(checkpoint("clip"), tmp_path / "clip-copy"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def features(folder: Path) -> torch.Tensor:
    values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    return Encoder.from_pretrained(str(folder)).features(values)


def nest_processor(folder: Path) -> Path:
    """Move the image processor to where transformers 5 keeps it."""
    plain, nested = folder / "preprocessor_config.json", folder / "processor_config.json"
    nested.write_text(
        json.dumps({"image_processor": json.loads(plain.read_text()), "processor_class": "CLIPProcessor"})
    )
    plain.unlink()
    return nested


def split_weights(folder: Path, place: str = "") -> Path:
    """Put the weights into two files, and an index beside them."""
    tensors = load_file(folder / WEIGHTS)
    names = [f"model-0000{part + 1}-of-00002.safetensors" for part in range(2)]
    index = {name: names[i % 2] for i, name in enumerate(sorted(tensors))}
    for part in names:
        save_file({name: tensors[name] for name in index if index[name] == part}, folder / part, {"format": "pt"})
    (folder / WEIGHTS).unlink()
    path = folder / f"{WEIGHTS}.index.json"
    path.write_text(json.dumps({"weight_map": {name: place + part for name, part in index.items()}}))
    return path


def test_processor_of_transformers_5_is_read_and_stands_in_the_digest(checkpoint: CheckpointOf, copy: Path):
    nested = nest_processor(copy)
    used = Encoder.from_pretrained(str(copy))
    assert used.preprocessing == Encoder.from_pretrained(str(checkpoint("clip"))).preprocessing
    content = json.loads(nested.read_text())
    content["image_processor"]["image_mean"] = [0.1, 0.2, 0.3]
    nested.write_text(json.dumps(content))
    changed = Encoder.from_pretrained(str(copy))
    assert changed.preprocessing.mean == (0.1, 0.2, 0.3)
    assert changed.revision != used.revision


def test_two_processors_that_differ_are_refused(copy: Path):
    content = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": content}))
    Encoder.from_pretrained(str(copy))
    edit(copy / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3])
    with pytest.raises(EncoderError, match="describe different image processors"):
        Encoder.from_pretrained(str(copy))


def test_a_checkpoint_in_several_files_is_the_same_and_each_stands_in_the_digest(copy: Path):
    whole = features(copy)
    split_weights(copy)
    assert torch.equal(features(copy), whole)
    seen = {content_digest(copy)}
    for path in sorted(copy.glob("model*")):
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        seen.add(content_digest(copy))
        path.write_bytes(before)
    assert len(seen) == 4


@pytest.mark.parametrize("place", ["../other/", "/elsewhere/", "sub/", "..\\other\\"])
def test_an_index_that_leads_outside_its_folder_is_refused(copy: Path, place: str):
    split_weights(copy, place)
    with pytest.raises(EncoderError, match="only files of its own folder"):
        features(copy)


def test_a_part_of_the_weights_that_is_missing_is_named(copy: Path):
    split_weights(copy)
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"model-00002-of-00002\.safetensors, which is missing"):
        features(copy)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pickled", [False, True])
def test_half_precision_is_computed_as_its_float32_cast(copy: Path, dtype: torch.dtype, pickled: bool):
    halved = {name: tensor.to(dtype) for name, tensor in load_file(copy / WEIGHTS).items()}
    save_file({name: tensor.float() for name, tensor in halved.items()}, copy / WEIGHTS, {"format": "pt"})
    expected = features(copy)
    if pickled:
        (copy / WEIGHTS).unlink()
        torch.save(halved, copy / "pytorch_model.bin")
    else:
        save_file(halved, copy / WEIGHTS, {"format": "pt"})
    edit(copy / "config.json", torch_dtype="float16")
    assert torch.equal(features(copy), expected)


REFUSED_WEIGHTS = {
    "quantized": ({"logit_scale": torch.zeros(1, dtype=torch.int8)}, r"logit_scale is stored as torch\.int8"),
    "other shapes": (
        {"vision_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(97, 48)},
        r"fc1\.weight is \[97, 48\] in the weights, but config\.json makes it \[96, 48\]",
    ),
}


@pytest.mark.parametrize(("changes", "said"), REFUSED_WEIGHTS.values(), ids=REFUSED_WEIGHTS.keys())
def test_weights_that_cannot_be_used_are_named(copy: Path, changes: dict[str, torch.Tensor], said: str):
    save_file(load_file(copy / WEIGHTS) | changes, copy / WEIGHTS, {"format": "pt"})
    with pytest.raises(EncoderError, match=said):
        features(copy)


def test_a_pickled_module_is_refused(copy: Path):
    (copy / WEIGHTS).unlink()
    torch.save(torch.nn.Linear(2, 2), copy / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"expected a dictionary of tensors.*Save the state_dict"):
        features(copy)


def test_a_git_lfs_pointer_names_the_remedy(copy: Path):
    (copy / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    with pytest.raises(EncoderError, match="git lfs pull"):
        features(copy)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "is missing"), ("{}", "model_type"), ("[", "JSON"), ("[]", "object")]
)
def test_what_a_checkpoint_is_comes_from_its_configuration_alone(copy: Path, content: str | None, said: str):
    if content is None:
        (copy / "config.json").unlink()
    else:
        (copy / "config.json").write_text(content)
    with pytest.raises(EncoderError, match=rf"config\.json: .*{said}"):
        features(copy)


@pytest.mark.parametrize(
    "named",
    [
        {"attn_implementation": "org/repo"},
        {"_attn_implementation_internal": {"vision_config": "org/repo"}},
        {"vision_config": {"attn_implementation": "org/repo"}},
        {"auto_map": {"AutoModel": "own.Model"}},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
    ],
)
@pytest.mark.parametrize("load", [Encoder.from_pretrained, TextEncoder.from_pretrained])
def test_configurations_that_name_code_are_refused(copy: Path, named: dict[str, object], load: Callable[[str], object]):
    edit(copy / "config.json", **named)
    with pytest.raises(EncoderError, match="are never loaded"):
        load(str(copy))


def test_a_processor_that_names_code_is_refused(copy: Path):
    edit(copy / "preprocessor_config.json", auto_map={"AutoImageProcessor": "own.Processor"})
    with pytest.raises(EncoderError, match="auto_map"):
        features(copy)


@pytest.mark.parametrize("activation", ["tanh", "mish", "own"])
def test_activations_that_cannot_be_exported_are_refused_when_loading(copy: Path, activation: str):
    config = json.loads((copy / "config.json").read_text())
    for tower, load in (("vision_config", Encoder), ("text_config", TextEncoder)):
        (copy / "config.json").write_text(json.dumps(config | {tower: config[tower] | {"hidden_act": activation}}))
        with pytest.raises(EncoderError, match=rf"clip-copy: .*{activation}.*quick_gelu"):
            load.from_pretrained(str(copy))


@pytest.mark.parametrize("encoder", ["clip-vit-base-patch32", "./nothing", "/nothing/at/all", "a/b/c"])
def test_names_that_are_no_hub_ids_fail_at_once(encoder: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(EncoderError, match="no local folder of this name, and no hub id"):
        Checkpoint.find(encoder)


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked = []

    def unreachable(*_: object, **__: object) -> None:
        asked.append(time.monotonic())
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match=r"hub cannot be reached \(no route\)"):
        Checkpoint.find("someone/something")
    assert len(asked) == 1
