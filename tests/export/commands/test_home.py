"""Training and exporting write the feature cache into the home of whoever runs them, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
from empty_home import run_at_home

from tiny_models import TINY_CLIP

BOTH_COMMANDS = """
import sys
from clip_export.commands import export, train

assert train.main(["photos", "--epochs", "2", "--out", "head.pt", *sys.argv[1:]]) == 0
assert export.main(["--head", "head.pt", "-o", "model.onnx"]) == 0
"""


@pytest.mark.parametrize(("options", "left"), [((), {"clip-toolkit"}), (("--no-cache",), set())])
def test_only_the_feature_cache_is_left(options: tuple[str, ...], left: set[str], tmp_path: Path):
    home, draw = tmp_path / "home", TINY_CLIP.parent / "draw.py"
    home.mkdir()
    pictures = [str(tmp_path / "photos"), "--classes", "circle", "heart", "--per-class", "6"]
    subprocess.run([sys.executable, str(draw), *pictures], check=True, capture_output=True)
    run_at_home(home, "-c", BOTH_COMMANDS, "--encoder", str(TINY_CLIP), *options)
    assert (tmp_path / "model.onnx").is_file()
    found = {path.relative_to(home) for path in home.rglob("*") if path.is_file()}
    assert {"clip-toolkit" if "clip-toolkit" in path.parts else str(path) for path in found} == left
