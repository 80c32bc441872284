"""Heads saved as programs: refused unless trusted, then the notebook's own answers, in any batch size."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from clip_export.heads.files import load_head
from clip_export.heads.reading import Reading
from clip_toolkit.errors import HeadError

DIM = 6
FEATURES = torch.randn(40, DIM, generator=torch.Generator().manual_seed(1))
TRUSTED = Reading(trust_program=True)


class Residual(nn.Module):
    """Normalisation, a residual connection, and a single logit without a dimension of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.hidden, self.out = nn.LayerNorm(DIM), nn.Linear(DIM, DIM), nn.Linear(DIM, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(functional.normalize(x, dim=-1))
        return self.out(x + torch.relu(self.hidden(x))).squeeze(-1)


class Flattens(nn.Module):
    """Reads the batch size, and ends in a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(DIM, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.out(x.view(x.size(0), -1)), dim=1)


HEADS: dict[str, Callable[[], nn.Module]] = {
    "layers": lambda: nn.Sequential(nn.Linear(DIM, 4), nn.BatchNorm1d(4), nn.GELU(), nn.Dropout(0.4), nn.Linear(4, 3)),
    "residual": Residual,
    "flattens": Flattens,
}


def head(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return HEADS[name]().eval()


def saved(way: str, module: nn.Module, folder: Path) -> Path:
    path = folder / ("head.pt2" if way == "export" else "head.pt")
    batch = {0: torch.export.Dim("batch")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        if way == "export":
            torch.export.save(torch.export.export(module, (FEATURES[:4],), dynamic_shapes=(batch,)), path)
        else:
            program = torch.jit.script(module) if way == "script" else torch.jit.trace(module, FEATURES[:1])
            torch.jit.save(program, path)
    return path


def logits_of(outputs: Tensor) -> Tensor:
    """What the file is to make of a head's own outputs."""
    if outputs.ndim == 1:
        return torch.stack([torch.zeros_like(outputs), outputs], dim=1)
    return outputs.log() if float(outputs.min()) >= 0 else outputs


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("layers", "script"),
        ("residual", "trace"),
        ("residual", "export"),
        ("flattens", "script"),
        ("flattens", "trace"),
    ],
)
def test_programs_answer_as_in_the_notebook(name: str, way: str, tmp_path: Path):
    module = head(name)
    found = load_head(saved(way, module, tmp_path), TRUSTED)
    with torch.inference_mode():
        assert torch.allclose(found.module(FEATURES), logits_of(module(FEATURES)), atol=1e-5)
    assert found.module.spec.source == "program"
    kind = "torch.export" if way == "export" else "TorchScript"
    assert found.module.spec.reading("pooled").startswith(kind)


def test_half_precision_becomes_float32(tmp_path: Path):
    module = head("layers")
    found = load_head(saved("script", copy.deepcopy(module).half(), tmp_path), TRUSTED)
    with torch.inference_mode():
        assert torch.allclose(found.module(FEATURES), module(FEATURES), atol=5e-3)


def test_the_example_of_the_export_fixes_no_batch_size_unless_the_program_reads_it(tmp_path: Path):
    path = tmp_path / "head.pt2"
    torch.export.save(torch.export.export(head("layers"), (FEATURES[:1],)), path)
    with torch.inference_mode():
        assert torch.allclose(load_head(path, TRUSTED).module(FEATURES), head("layers")(FEATURES), atol=1e-5)
    torch.export.save(torch.export.export(head("flattens"), (FEATURES[:1],)), path)
    with pytest.raises(HeadError, match=r"for a batch of 1 alone\. Export it with dynamic_shapes"):
        load_head(path, TRUSTED)


@pytest.mark.parametrize("way", ["script", "export"])
def test_nothing_is_loaded_without_trust(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = saved(way, head("layers"), tmp_path)
    for module in (torch.jit, torch.export):
        monkeypatch.setattr(module, "load", lambda *_, **__: pytest.fail("was loaded"))
    for reading in (None, Reading(task="multi-label")):
        with pytest.raises(HeadError, match=r"program.*add --trust-program; otherwise save the head's state_dict"):
            load_head(path, reading)


def test_options_that_a_program_leaves_no_room_for(tmp_path: Path):
    path = saved("script", head("layers"), tmp_path)
    for options in ({"activation": "gelu"}, {"norm_position": "after"}, {"head_class": "notebook.py:Head"}):
        with pytest.raises(HeadError, match="says its own layers"):
            load_head(path, Reading(trust_program=True, **options))
