"""The head and its files: our own, notebooks' bare state_dicts, and files that must be refused."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clip_export.heads.files import TrainedHead, load_head, save_head
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.reading import Reading
from clip_export.heads.references import EncoderReference
from clip_toolkit.errors import HeadError, OutputError

FEATURES = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))


def trained(**options: object) -> TrainedHead:
    module = VLMtoMLP(12, **{"hidden_dim": 8, "output_dim": 3} | options).eval()
    return TrainedHead(module, EncoderReference("org/model", "abc", "projected"), ("ä", "b", "c"), {"images": 9})


def test_default_head_is_the_courses():
    head = VLMtoMLP()
    assert [type(layer).__name__ for layer in head.layers] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert head.spec.layers == (768, 256, 2)


@pytest.mark.parametrize(("hidden", "linears"), [((), 1), (8, 2), ((8, 6), 3)])
def test_linear_and_deeper_heads_are_the_same_class(hidden: object, linears: int):
    head = VLMtoMLP(12, hidden, 3).eval()
    assert sum(isinstance(layer, nn.Linear) for layer in head.layers) == linears
    assert head(FEATURES).shape == (5, 3)


@pytest.mark.parametrize("options", [{"activation": "maxout"}, {"dropout": 1.0}, {"hidden_dim": 0}])
def test_impossible_heads_are_refused(options: dict[str, object]):
    with pytest.raises(HeadError, match="head: "):
        VLMtoMLP(12, **options)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize(
    "options", [{}, {"hidden_dim": ()}, {"hidden_dim": (8, 6), "activation": "gelu", "dropout": 0.5}]
)
def test_saved_heads_come_back_whole(tmp_path: Path, suffix: str, options: dict[str, object]):
    head = trained(**options)
    save_head(head, tmp_path / f"head{suffix}")
    loaded = load_head(tmp_path / f"head{suffix}")
    assert torch.equal(loaded.module(FEATURES), head.module(FEATURES))
    assert (loaded.encoder, loaded.labels, loaded.training) == (head.encoder, head.labels, head.training)
    assert loaded.module.spec == head.module.spec
    assert not loaded.module.training


class Notebook(nn.Module):
    """The course's class as people type it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc_in = nn.Linear(12, 8)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(0.3)
        self.fc_out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc_out(self.drop(self.relu(self.fc_in(x))))


class Net(nn.Module):
    """The same inside an nn.Sequential of another numbering."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Dropout(), nn.Linear(12, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class NoBias(nn.Module):
    """A single layer without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.probe = nn.Linear(12, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.probe(x)


@pytest.mark.parametrize("kind", [Notebook, Net, NoBias])
@pytest.mark.parametrize("wrapped", [False, True])
def test_bare_state_dicts_of_notebooks(tmp_path: Path, kind: type[nn.Module], wrapped: bool):
    module = kind().eval()
    state = module.state_dict()
    torch.save({"epoch": 7, "model_state_dict": state} if wrapped else state, tmp_path / "head.pt")
    loaded = load_head(tmp_path / "head.pt")
    torch.testing.assert_close(loaded.module(FEATURES), module(FEATURES), atol=0, rtol=0)
    assert (loaded.encoder, loaded.labels) == (None, None)


def test_data_parallel_prefix_and_alphabetical_order(tmp_path: Path):
    """Safetensors sorts names, so that the last layer may come first."""
    module = Notebook().eval()
    renamed = {"module.zz.weight": module.fc_in.weight, "module.zz.bias": module.fc_in.bias}
    renamed |= {"module.aa.weight": module.fc_out.weight, "module.aa.bias": module.fc_out.bias}
    save_file({name: tensor.detach().clone() for name, tensor in renamed.items()}, tmp_path / "head.safetensors")
    torch.testing.assert_close(load_head(tmp_path / "head.safetensors").module(FEATURES), module(FEATURES))


def test_numbered_square_layers_in_a_sorted_file(tmp_path: Path):
    """Safetensors puts 12 before 3: the numbers tell the order, the shapes do not."""
    layers = {number: nn.Linear(12, 12) for number in (0, 3, 6, 9, 12)} | {15: nn.Linear(12, 3)}
    weights = {f"net.{number}.weight": layer.weight.detach().clone() for number, layer in layers.items()}
    weights |= {f"net.{number}.bias": layer.bias.detach().clone() for number, layer in layers.items()}
    save_file(weights, tmp_path / "head.safetensors")
    expected = FEATURES
    for number, layer in layers.items():
        expected = layer(expected) if number == 15 else torch.relu(layer(expected))
    torch.testing.assert_close(load_head(tmp_path / "head.safetensors").module(FEATURES), expected)


def test_activation_of_a_bare_state_dict_is_an_option(tmp_path: Path):
    module = Notebook().eval()
    torch.save(module.state_dict(), tmp_path / "head.pt")
    expected = module.fc_out(torch.tanh(module.fc_in(FEATURES)))
    torch.testing.assert_close(load_head(tmp_path / "head.pt", Reading(activation="tanh")).module(FEATURES), expected)


def test_half_precision_heads_are_computed_in_float32(tmp_path: Path):
    torch.save(Notebook().half().state_dict(), tmp_path / "head.pt")
    assert load_head(tmp_path / "head.pt").module(FEATURES).dtype == torch.float32


class Exploit:
    """A pickle that would create a file when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.trace), 0o700)


def test_a_malicious_pickle_is_not_executed(tmp_path: Path):
    trace = tmp_path / "executed"
    torch.save({"weight": Exploit(trace)}, tmp_path / "head.pt")
    with pytest.raises(HeadError, match="run any code"):
        load_head(tmp_path / "head.pt")
    assert not trace.exists()
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Exploit(trace)))
    with pytest.raises(HeadError):
        load_head(tmp_path / "plain.pt")
    assert not trace.exists()


def test_a_pickled_module_is_refused_with_the_fix(tmp_path: Path):
    torch.save(Notebook(), tmp_path / "head.pt")
    with pytest.raises(HeadError, match=r"torch\.save\(mlp_head\.state_dict\(\)"):
        load_head(tmp_path / "head.pt")


REFUSED = {
    "conv": ({"conv.weight": torch.zeros(3, 3, 2, 2)}, "could be many things"),
    "batch norm": ({"a.weight": torch.zeros(8, 12), "bn.running_mean": torch.zeros(8)}, r"bn\.running_mean"),
    "layer norm": ({"a.weight": torch.zeros(8, 12), "norm.weight": torch.zeros(8)}, r"norm\.weight"),
    "no chain": ({"a.weight": torch.zeros(8, 12), "b.weight": torch.zeros(3, 9)}, "12->8, b 9->3"),
    "nothing": ({}, "expected a state_dict"),
    "numbers": ({"a": 1.0}, "names to floating-point tensors"),
    "integers": ({"a.weight": torch.zeros(3, 12, dtype=torch.int8)}, "is int8"),
    "names that are none": ({0: torch.zeros(3, 12)}, "names to floating-point tensors"),
    "bias of another size": ({"a.weight": torch.zeros(3, 12), "a.bias": torch.zeros(5)}, r"a\.bias"),
    "bias without weight": ({"a.weight": torch.zeros(3, 12), "b.bias": torch.zeros(3)}, r"b\.bias"),
    "a tensor": (torch.zeros(3, 12), "Tensor"),
}


@pytest.mark.parametrize(("content", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_other_contents_are_refused(tmp_path: Path, content: object, said: str):
    torch.save(OrderedDict(content) if isinstance(content, dict) else content, tmp_path / "head.pt")
    with pytest.raises(HeadError, match=said):
        load_head(tmp_path / "head.pt")


@pytest.mark.parametrize("name", ["head.pt", "head.safetensors"])
def test_damaged_files(tmp_path: Path, name: str):
    path = tmp_path / name
    with pytest.raises(HeadError, match=rf"^{path}: there is no such head file"):
        load_head(path)
    path.write_bytes(b"")
    with pytest.raises(HeadError, match=name):
        load_head(path)
    save_head(trained(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HeadError, match=name):
        load_head(path)


def test_an_archive_with_damaged_names(tmp_path: Path):
    path = tmp_path / "head.pt"
    save_head(trained(), path)
    whole = path.read_bytes()
    at = whole.rindex(b"data.pkl")
    path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    with pytest.raises(HeadError, match="not a readable PyTorch file"):
        load_head(path)


def test_head_file_of_a_newer_format(tmp_path: Path):
    save_head(trained(), tmp_path / "head.pt")
    content = torch.load(tmp_path / "head.pt", weights_only=True)
    content["clip-toolkit-head"] = content["clip-toolkit-head"].replace('"version": 1', '"version": 99')
    torch.save(content, tmp_path / "head.pt")
    with pytest.raises(HeadError, match="newer"):
        load_head(tmp_path / "head.pt")


def test_unknown_suffix(tmp_path: Path):
    with pytest.raises(HeadError, match=r"\.pt, \.pth, \.safetensors"):
        save_head(trained(), tmp_path / "head.bin")


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(OutputError, match="mkdir -p"):
        save_head(trained(), tmp_path / "missing" / "head.pt")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "head.pt"
    save_head(trained(), path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        save_head(trained(), path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["head.pt"]
