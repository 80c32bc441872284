"""Models of every task, and pictures of one colour with the labels that a model gives them, some of them wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task_model
from tiny_fused_model import png

from clip_eval.commands.evaluate import main
from clip_toolkit import Prediction, load
from clip_toolkit.judging import figures
from clip_toolkit.spec.tasks import SINGLE_LABEL

COUNT = 40


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bootstrap samples take most of the time, and their number is none of these tests' business."""
    monkeypatch.setattr(figures, "RESAMPLES", 20)


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str], Path]:
    """Write the model of a task."""

    def write(task: str) -> Path:
        path = tmp_path / f"{task}.onnx"
        path.write_bytes(tiny_task_model.model(task))
        return path

    return write


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Names of pictures in the working folder."""
    colours = np.random.default_rng(3).integers(0, 256, (COUNT, 3))
    names = [f"{number:02}.png" for number in range(COUNT)]
    for name, colour in zip(names, colours.tolist(), strict=True):
        (tmp_path / name).write_bytes(png(tuple(colour)))
    return names


@pytest.fixture
def manifest(tmp_path: Path, pictures: list[str]) -> Callable[..., Path]:
    """Write a manifest of labels of one model: those that it predicts, but for every fifth picture."""

    def write(path: Path, *, name: str = "data.csv", **columns: list[str]) -> Path:
        predictions = list(load(path, device="cpu").predict_many(pictures))
        rows = []
        for number, found in enumerate(predictions):
            if found.values:
                cells: dict[str, Any] = {key: value + number % 5 for key, value in found.values.items()}
            else:
                cells = {"label": _labels(found, wrong=number % 5 == 0, which=number)}
            rows.append({"path": pictures[number], **cells} | {key: value[number] for key, value in columns.items()})
        written = tmp_path / name
        if written.suffix == ".jsonl":
            written.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        else:
            lines = [",".join(rows[0])] + [
                ",".join(";".join(cell) if isinstance(cell, list) else str(cell) for cell in row.values())
                for row in rows
            ]
            written.write_text("\n".join(lines), encoding="utf-8")
        return written

    return write


@pytest.fixture
def evaluated(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run the command with ``--json`` and return what it printed."""

    def run(*arguments: object) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*map(str, arguments), "--json", "--device", "cpu"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def _labels(found: Prediction, *, wrong: bool, which: int) -> str | list[str]:
    said = set(found.decisions)
    if found.task == SINGLE_LABEL:
        return min({*found.labels} - said if wrong else said)
    return sorted(said ^ {found.labels[which % len(found.labels)]} if wrong else said)
