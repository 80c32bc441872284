"""Weights of OpenCLIP in a bare file: the same encoder as the folder, and nothing is guessed."""

import importlib.machinery
import json
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clip_export.encoders.image import Encoder
from clip_export.encoders.open_clip_model import OpenClipModel
from clip_export.encoders.text import TextEncoder
from clip_export.heads.files import TrainedHead, load_head, save_head
from clip_export.heads.tuned_encoder import referenced_encoder, save_with_encoder
from clip_toolkit.errors import EncoderError, MissingDependencyError
from tiny_open_clip import MODEL, save_open_clip

pytestmark = pytest.mark.transformers

RULE = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
OPEN = {name: value for name, value in MODEL.items() if name != "quick_gelu"}
"""The configuration of a model whose name does not tell the activation."""


@pytest.fixture
def registry() -> Iterator[types.ModuleType]:
    """A package in the place of open_clip, which knows three models."""
    module = types.ModuleType("open_clip")
    module.__spec__ = importlib.machinery.ModuleSpec("open_clip", None)
    models = {"Tiny-quickgelu": MODEL, "Tiny": OPEN, "Tiny-two": MODEL, "Tiny-none": MODEL}
    rules = {"Tiny-two": {"a": RULE, "b": RULE | {"interpolation": "bilinear"}}, "Tiny-none": {}}
    module.__version__ = "3.3.0"
    module.get_model_config = models.get
    module.list_pretrained_tags_by_model = lambda name: list(rules.get(name, {"a": RULE, "b": RULE}))
    module.get_pretrained_cfg = lambda name, tag: rules.get(name, {"a": RULE, "b": RULE})[tag]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "open_clip", module)
        yield module


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The weights of the tiny CLIP, with a tokenizer and without a configuration beside them."""
    folder = save_open_clip("clip", tmp_path / "weights")
    (folder / "open_clip_config.json").unlink()
    return folder / "open_clip_model.safetensors"


def with_rule(folder: Path) -> Path:
    path = folder / "open_clip_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"preprocess_cfg": RULE}))
    return folder


@pytest.mark.usefixtures("registry")
def test_a_named_file_is_the_folder(file: Path, tmp_path: Path):
    folder = with_rule(save_open_clip("clip", tmp_path / "folder"))
    values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = Encoder.from_pretrained(str(folder))
    for model in (OpenClipModel("Tiny-quickgelu"), OpenClipModel("Tiny", "quick_gelu")):
        found = Encoder.from_pretrained(str(file), open_clip_model=model)
        assert torch.equal(found.features(values), expected.features(values))
        assert found.preprocessing == expected.preprocessing
        assert f"assumed: {file.name} is of the model and has the preprocessing of open_clip's Tiny" in "".join(
            found.notes
        )
    gelu = Encoder.from_pretrained(str(file), open_clip_model=OpenClipModel("Tiny", "gelu"))
    assert (gelu.features(values) - expected.features(values)).abs().max() > 1e-3
    assert gelu.revision != found.revision
    assert TextEncoder.from_pretrained(str(file), open_clip_model=OpenClipModel("Tiny-quickgelu")).context == 24
    assert (found.spec().id, found.spec().revision) == (file.name, found.revision)


def test_a_file_with_its_configuration_beside_it(file: Path, tmp_path: Path):
    config = with_rule(save_open_clip("clip", tmp_path / "folder")) / "open_clip_config.json"
    renamed = file.with_name("weights.pt")
    tensors = {f"module.{name}": tensor for name, tensor in load_file(file).items()}
    torch.save({"epoch": 3, "state_dict": tensors}, renamed)  # as OpenCLIP's training saves them
    (file.parent / config.name).write_bytes(config.read_bytes())
    found, expected = (Encoder.from_pretrained(str(path)) for path in (renamed, config.parent))
    values = torch.randn(2, 3, 32, 32)
    assert torch.equal(found.features(values), expected.features(values))


@pytest.mark.usefixtures("registry")
def test_heads_remember_their_file(file: Path, tmp_path: Path, head_for: Callable[[Encoder], TrainedHead]):
    model = OpenClipModel("Tiny", "gelu")
    encoder = Encoder.from_pretrained(str(file), open_clip_model=model)
    head = head_for(encoder)
    head = type(head)(
        **{**vars(head), "encoder": type(head.encoder)(str(file), encoder.revision, open_clip_model=model)}
    )
    save_head(head, tmp_path / "head.pt")
    known = load_head(tmp_path / "head.pt").encoder
    assert known is not None
    assert (known.open_clip_model, known.revision) == (model, encoder.revision)
    assert referenced_encoder(tmp_path / "head.pt", known).revision == encoder.revision
    tuned = save_with_encoder(head, encoder, tmp_path / "tuned.pt")
    loaded = referenced_encoder(tmp_path / "tuned.pt", tuned.encoder)
    assert loaded.preprocessing == encoder.preprocessing
    copied = {path.name for path in (tmp_path / str(tuned.encoder.folder)).iterdir()}
    assert copied == {
        "config.json",
        "merges.txt",
        "model.safetensors",
        "open_clip_config.json",
        "tokenizer_config.json",
        "vocab.json",
    }


REFUSED = {
    "unnamed": (None, r"bare file of weights\. Name its model with --open-clip-model"),
    "unknown": (OpenClipModel("Tiny-3"), "open_clip 3.3.0 has no such model"),
    "open": (OpenClipModel("Tiny"), "neither weights nor the name Tiny tell the activation"),
    "told twice": (OpenClipModel("Tiny-quickgelu", "gelu"), "names its own activation"),
    "two rules": (OpenClipModel("Tiny-two"), "several rules of preprocessing"),
    "no rule": (OpenClipModel("Tiny-none"), "no rules of preprocessing"),
}


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(("model", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_bare_file_leaves_open_is_asked_for(file: Path, model: OpenClipModel | None, said: str):
    with pytest.raises(EncoderError, match=said):
        Encoder.from_pretrained(str(file), open_clip_model=model)


def test_a_folder_is_no_bare_file(file: Path):
    with pytest.raises(EncoderError, match="is no file"):
        Encoder.from_pretrained(str(file.parent), open_clip_model=OpenClipModel("Tiny"))


def test_a_missing_open_clip_is_named(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("clip_export.extra.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"clip-toolkit\[export,cpu,openclip\]"):
        Encoder.from_pretrained(str(file), open_clip_model=OpenClipModel("Tiny"))


@pytest.mark.usefixtures("registry")
def test_a_pickled_module_and_a_program_are_refused(tmp_path: Path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "program.pt")
    for name, said in (("module", "Save the state_dict instead of the module"), ("program", "torch.jit.load")):
        with pytest.raises(EncoderError, match=said):
            Encoder.from_pretrained(str(tmp_path / f"{name}.pt"), open_clip_model=OpenClipModel("Tiny-quickgelu"))
