"""Model files of every kind, coloured pictures, and what clip-infer says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_fused_model
import tiny_task_model
from tiny_fused_model import png

from clip_toolkit.commands.infer import main as infer
from clip_toolkit.spec.tasks import TASKS

COLOURS = [(number * 9 % 256, number * 31 % 256, number * 57 % 256) for number in range(20)]


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """Model files of every kind, by name."""
    contents = {task: tiny_task_model.model(task) for task in TASKS} | {"fused": tiny_fused_model.model()}
    for name, content in contents.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
    return {name: tmp_path / f"{name}.onnx" for name in contents}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twenty pictures and one file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, colour in enumerate(COLOURS):
        (folder / f"{number:02}.png").write_bytes(png(colour))
    (folder / "07b.jpg").write_bytes(b"junk")
    return folder


@pytest.fixture
def inferred(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """The records of ``clip-infer``."""

    def records(model: Path, *arguments: object) -> list[dict[str, Any]]:
        output = tmp_path / "inferred.jsonl"
        infer([*map(str, arguments), "--model", str(model), "--output", str(output), "--quiet"])
        return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]

    return records


@pytest.fixture
def written(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """The records of the JSONL parts in ``out``, in the order of their names."""

    def records() -> list[dict[str, Any]]:
        parts = sorted((tmp_path / "out").glob("part-*.jsonl"))
        return [json.loads(line) for part in parts for line in part.read_text(encoding="utf-8").splitlines()]

    return records
