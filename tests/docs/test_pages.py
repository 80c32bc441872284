"""Every command and program of docs/training.md and docs/language.md, run as it stands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from clip_toolkit.spec.model_file import read_spec

ROOT = Path(__file__).parents[2]

pytest.importorskip("sklearn", reason="needs the report extra")


def run_page(name: str, folder: Path) -> str:
    """Run a page of docs in a folder; return what its commands print."""
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    (folder / "models").symlink_to(ROOT / "models")
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shown = ""
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        commands = [[sys.executable, "-c", block]] if language == "python" else map(shlex.split, block.splitlines())
        for command in commands:
            done = subprocess.run(
                command,
                cwd=folder,
                env=os.environ | {"PATH": tools},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            shown += done.stdout
    return shown


def test_the_walk_through_works(tmp_path: Path):
    shown = run_page("training.md", tmp_path)
    assert {path.name for path in (tmp_path / "report").iterdir()} >= {"report.html", "roc-pr.png", "predictions.csv"}
    assert re.search(r"test: 7\d images: normal 3\d, pneumonia 3\d", shown)
    assert re.search(r"thresholds +pneumonia from 0\.", shown)


def test_words_and_few_pictures(tmp_path: Path):
    draw = [sys.executable, str(ROOT / "models/draw.py"), str(tmp_path / "photos"), "--per-class", "6"]
    subprocess.run([*draw, "--classes", "circle", "heart"], check=True, capture_output=True)
    shown = run_page("language.md", tmp_path)
    assert re.search(r"validation loss by start: .*zero-shot, pull \d+ \d", shown)  # in whatever order
    assert "torch.Size([2, 64])" in shown
    assert "True tiny-clip" in shown
    assert read_spec(tmp_path / "zero.onnx").training["templates"][1] == "a photo of a {}"
    assert read_spec(tmp_path / "few.onnx").labels == ("circle", "heart")
    assert re.search(r"image alone \d\d\.\d%, text alone \d\d\.\d%, both 9\d\.\d%", shown)
    assert read_spec(tmp_path / "fused.onnx").text is not None
    assert read_spec(tmp_path / "two.onnx").encoder.feature == "projected"
