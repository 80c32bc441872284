"""Training and exporting write the feature cache into the home of whoever runs them, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
from empty_home import run_at_home

from tiny_models import TINY_CLIP

DRAW = TINY_CLIP.parent / "draw.py"


@pytest.mark.parametrize(("options", "left"), [((), {".cache/clip-toolkit/features"}), (("--no-cache",), set())])
def test_only_the_feature_cache_is_left(options: tuple[str, ...], left: set[str], tmp_path: Path):
    home, photos = tmp_path / "home", str(tmp_path / "photos")
    home.mkdir()
    draw = [sys.executable, str(DRAW), photos, "--classes", "circle", "heart", "--per-class", "6"]
    subprocess.run(draw, check=True, capture_output=True)
    train = ["-m", "clip_export.commands.train", photos, "--encoder", str(TINY_CLIP), "--epochs", "2", *options]
    run_at_home(home, *train, "--out", str(tmp_path / "head.pt"))
    head, model = str(tmp_path / "head.pt"), str(tmp_path / "model.onnx")
    run_at_home(home, "-m", "clip_export.commands.export", "--head", head, "-o", model)
    found = {path.parent.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
    assert {"/".join(folder.split("/")[:3]) for folder in found} == left
