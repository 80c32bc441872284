"""An int8 file gives Python's decisions in onnxruntime-node and onnxruntime-web."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import clip_toolkit
from clip_toolkit.runtime import processor

ROOT = Path(__file__).parents[2]
PACKAGES = {"node": "onnxruntime-node", "browser": "onnxruntime-web"}
COUNT = 100


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of four shapes, and ``int8.onnx``, which tells them apart."""
    if find_spec("torch") is None:
        pytest.skip("quantizing needs the export extra")
    folder = tmp_path_factory.mktemp("int8")

    def run(*arguments: object) -> None:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    if processor.is_x86() and not processor.has_vnni():
        pytest.skip("int8 files for the web are made on processors with VNNI")
    run(ROOT / "models" / "draw.py", "photos", "--classes", "circle", "square", "star", "heart", "--per-class", "50")
    run("-m", "clip_export.commands.train", "photos", "--encoder", ROOT / "models" / "tiny-clip", "--out", "head.pt")
    run(
        "-m",
        "clip_export.commands.export",
        "--head",
        "head.pt",
        "--quantize",
        "int8",
        "--target",
        "web",
        "-o",
        "int8.onnx",
    )
    return folder


@pytest.mark.parametrize("example", PACKAGES)
def test_decisions_are_pythons(example: str, node: str, drawn: Path):
    modules = ROOT / "examples" / example / "node_modules"
    if not modules.is_dir():
        pytest.skip(f"the packages of examples/{example} are not installed. Run: make examples")
    classifier = clip_toolkit.load(drawn / "int8.onnx", device="cpu")
    files = sorted(path for path in (drawn / "photos").rglob("*") if path.is_file())[::2]
    pixels = np.stack([classifier.pixels(file) for file in files])
    pixels.tofile(drawn / "pixels")
    script = Path(__file__).with_name("run_pixels.mjs")
    arguments = [modules, PACKAGES[example], drawn / "int8.onnx", drawn / "pixels", len(pixels), pixels.shape[1]]
    ran = subprocess.run(
        [node, str(script), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    theirs, ours = np.array(json.loads(ran.stdout)), classifier.run(pixels).probabilities
    assert len(theirs) == COUNT
    assert (theirs.argmax(1) == ours.argmax(1)).mean() >= 0.99
    assert np.abs(theirs - ours).max() < 0.05
