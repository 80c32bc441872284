"""A model, pictures, and what clip-infer says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_task_model
from tiny_fused_model import png

from clip_toolkit.commands.infer import main as infer
from clip_toolkit.spec.tasks import SINGLE_LABEL


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_task_model.model(SINGLE_LABEL))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Sixty pictures, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:02}.png").write_bytes(png((number * 4, number * 31 % 256, number * 57 % 256)))
    (folder / "07b.jpg").write_bytes(b"junk")
    return folder


@pytest.fixture
def inferred(model: Path, photos: Path) -> list[dict[str, Any]]:
    """The records of ``clip-infer``."""
    output = model.parent / "inferred.jsonl"
    infer([str(photos), "--model", str(model), "--output", str(output), "--quiet"])
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
