"""Head classes of the user's that cannot be taken, each refused by what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from clip_export.encoders.image import Encoder
from clip_export.expect import save
from clip_export.heads.files import load_head
from clip_export.heads.reading import Reading
from clip_export.proof.reference import pixel_values
from clip_export.samples.pictures import picture
from clip_toolkit.errors import HeadError
from commands_in_process import run

SOURCE = """
import torch, os
from torch import nn
from torch.nn import functional as F

class Fine(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3)
    def forward(self, x):
        return self.fc(x)

class Residual(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.hidden, self.out = nn.Linear(dim, dim), nn.Linear(dim, 3)
    def forward(self, x):
        return self.out(x + torch.relu(self.hidden(x)))

class NeedsArguments(Fine):
    def __init__(self, classes):
        super().__init__()

class Raises(Fine):
    def forward(self, x):
        raise KeyError("pooler_output")

class Branches(Fine):
    def forward(self, x):
        return self.fc(x) if x.abs().max() > 0 else self.fc(-x)

class Random(Fine):
    def forward(self, x):
        return self.fc(F.dropout(x))

class OverTheBatch(Fine):
    def forward(self, x):
        return torch.softmax(self.fc(x), dim=0)

class Pair(Fine):
    def forward(self, x):
        return self.fc(x), x

class Wider(Fine):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 4)

class Meddles(Fine):
    def __init__(self):
        super().__init__()
        torch.set_default_dtype(torch.float64)
        os.chdir("/")
        print("training epoch 1")
"""


@pytest.fixture(autouse=True)
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebook.py").write_text(SOURCE)
    torch.manual_seed(0)
    torch.save({"fc.weight": torch.randn(3, 6), "fc.bias": torch.zeros(3)}, tmp_path / "head.pt")
    return tmp_path / "head.pt"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NeedsArguments", r"missing 1 .*--head-args NAME=VALUE"),
        ("Raises", "raised KeyError: 'pooler_output'"),
        ("Branches", "cannot be traced by torch.export"),
        ("Random", r"differently each time.*training=self\.training"),
        ("OverTheBatch", "depends on the other images of a batch"),
        ("Pair", "returns tuple instead of one tensor"),
        ("Wider", "does not fit the weights"),
        ("Missing", "has no nn.Module 'Missing'. It has Fine"),
    ],
)
def test_classes_that_cannot_be_taken(name: str, message: str, notebook: Path):
    with pytest.raises(HeadError, match=message):
        load_head(notebook, Reading(head_class=f"notebook.py:{name}"))


def test_a_file_that_is_missing_or_ends_the_program(notebook: Path):
    with pytest.raises(HeadError, match=r"expected FILE\.py:CLASS"):
        load_head(notebook, Reading(head_class="notebook.ipynb:Fine"))
    Path("exits.py").write_text("raise SystemExit(3)")
    with pytest.raises(HeadError, match="raised SystemExit: 3"):
        load_head(notebook, Reading(head_class="exits.py:Fine"))


def test_what_the_class_changes_is_put_back_and_what_it_prints_is_no_result(
    notebook: Path, capsys: pytest.CaptureFixture[str]
):
    folder = Path.cwd()
    load_head(notebook, Reading(head_class="notebook.py:Meddles"))
    assert (torch.get_default_dtype(), Path.cwd()) == (torch.float32, folder)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "training epoch 1\n")


def test_without_the_option_nothing_is_run(notebook: Path):
    Path("notebook.py").write_text("raise SystemExit(3)")
    load_head(notebook)


def test_a_residual_head_is_exported_whole_and_gives_the_notebooks_answers(
    encoder: Callable[[str], Encoder], tmp_path: Path
):
    """Bare, the same weights are two layers in a row, which --expect refuses."""
    known, paths = encoder("clip"), [tmp_path / f"{number}.png" for number in range(16)]
    for number, path in enumerate(paths):
        picture(40 + number, 60, number).save(path)
    hidden, out = nn.Linear(known.dim, known.dim), nn.Linear(known.dim, 3)
    weights = {f"{name}.{key}": value for name, part in {"hidden": hidden, "out": out}.items()
               for key, value in part.state_dict().items()}  # fmt: skip
    torch.save(weights, tmp_path / "head.pt")
    with torch.inference_mode():
        features = torch.cat([known.features(pixel_values(known, path.read_bytes())) for path in paths])
        save(tmp_path / "e.npz", paths, out(features + torch.relu(hidden(features))), labels=["ant", "bee", "cow"])
    task = ("--task", "single-label")
    arguments = ("--head", "head.pt", "--encoder", known.id, "--expect", "e.npz", "-o", "m.onnx", *task)
    bare = run("clip-export", *arguments, cwd=tmp_path)
    assert (bare.returncode, (tmp_path / "m.onnx").exists()) == (1, False)
    given = ("--head-class", "notebook.py:Residual", "--head-args", f"dim={known.dim}")
    done = run("clip-export", *arguments, *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "all 16 decisions equal" in done.stdout
    assert "assumed: a softmax, not a sigmoid of each or raw values" in done.stdout
