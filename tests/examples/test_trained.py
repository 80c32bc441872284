"""Models that are trained here as docs/training.md does: every client says what Python says of 100 pictures."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple

import clients
import numpy as np
import pytest
from PIL import Image, ImageDraw

from clip_toolkit import Prediction, load
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS

pytest.importorskip("torch", reason="training needs torch: pip install 'clip-toolkit[export]'")

ROOT = Path(__file__).parents[2]
PICTURES = 100
TOLERANCE = 1e-4
OPTIONS = {
    SINGLE_LABEL: (
        "xrays",
        "--groups",
        r"person(\d+)",
        "--operating-point",
        "sensitivity=0.95",
        "--positive",
        "pneumonia",
    ),
    MULTI_LABEL: ("table.csv", "--task", MULTI_LABEL, "--operating-point", "sensitivity=0.9"),
    REGRESSION: ("table.csv", "--task", REGRESSION),
}


class Trained(NamedTuple):
    """A model file, pictures, and what Python says of them."""

    file: Path
    pictures: list[Path]
    answers: list[Prediction]


class Said(NamedTuple):
    """What a client says of a picture.

    Attributes:
        labels: all that it predicts; none of a regression.
        numbers: probabilities, or the values of a regression, by label.
    """

    labels: set[str]
    numbers: dict[str, float]


def walk_through(folder: Path) -> list[Path]:
    """Draw the X-rays of docs/training.md by its own lines."""
    page = (ROOT / "docs" / "training.md").read_text()
    lines = re.search(r"```python\n(.*?range\(120\).*?)```", page, re.DOTALL)[1]
    with chdir(folder):
        exec(compile(lines.replace("range(120)", f"range({-(-PICTURES // 3)})"), "training.md", "exec"), {})  # noqa: S102
    return sorted(folder.glob("xrays/*/*.png"))[:PICTURES]


def discs(folder: Path, row: Callable[[tuple[int, int, int], int], dict[str, object]]) -> list[Path]:
    """Draw discs of random colours and sizes, and tell what is true of each in ``table.csv``."""
    rng, paths = np.random.default_rng(3), [folder / f"{number}.png" for number in range(PICTURES)]
    rows = []
    for path in paths:
        colour, radius = tuple(rng.integers(0, 256, 3).tolist()), int(rng.integers(8, 40))
        image = Image.new("RGB", (int(rng.integers(90, 130)), 96), tuple(rng.integers(90, 160, 3).tolist()))
        ImageDraw.Draw(image).circle((image.width / 2, 48), radius, fill=colour)
        image.save(path)
        rows.append({"path": path.name} | row(colour, radius))
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return paths


def kinds(colour: tuple[int, int, int], radius: int) -> dict[str, object]:
    facts = {"reddish": colour[0] > 128, "bluish": colour[2] > 128, "large": radius > 24}
    return {"label": ";".join(name for name, holds in facts.items() if holds)}


def values(colour: tuple[int, int, int], radius: int) -> dict[str, object]:
    return {"radius": radius, "light": sum(colour) / 3}


DRAWN = {
    SINGLE_LABEL: walk_through,
    MULTI_LABEL: lambda folder: discs(folder, kinds),
    REGRESSION: lambda folder: discs(folder, values),
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    from tiny_models import cut_tiny_clip

    encoder = cut_tiny_clip(tmp_path_factory.mktemp("encoder"))
    return {task: train_and_export(task, encoder, tmp_path_factory.mktemp("trained")) for task in TASKS}


def train_and_export(task: str, encoder: Path, folder: Path) -> Trained:
    """Run ``clip-train`` and ``clip-export``, and ask Python."""
    from clip_export.commands import export, train

    pictures = DRAWN[task](folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert train.main([*OPTIONS[task], "--encoder", str(encoder), "--lr", "1e-3", "--epochs", "10"]) == 0
        assert export.main(["--head", "head.pt"]) == 0
    classifier = load(folder / "model.onnx", device="cpu", resize="graph")
    assert classifier.spec.task == task
    assert bool(classifier.spec.thresholds) == (task != REGRESSION)
    return Trained(folder / "model.onnx", pictures, list(classifier.predict_many(pictures)))


@pytest.fixture(scope="session")
def by_node(trained: dict[str, Trained], node_example: clients.Run) -> Callable[[str], list[Said]]:
    return lambda task: of_records(node_example(trained[task].file, *trained[task].pictures, "--json"))


@pytest.fixture(scope="session")
def by_cpp(trained: dict[str, Trained], cpp_example: clients.Run) -> Callable[[str], list[Said]]:
    def ask(task: str) -> list[Said]:
        converted = [path.with_suffix(".ppm") for path in trained[task].pictures]
        for path, ppm in zip(trained[task].pictures, converted, strict=True):
            Image.open(path).convert("RGB").save(ppm)
        return of_records(cpp_example(trained[task].file, *converted, "--json"))

    return ask


def of_records(ran: subprocess.CompletedProcess[str]) -> list[Said]:
    assert (ran.returncode, ran.stderr) == (0, "")
    return [of_record(json.loads(line)) for line in ran.stdout.splitlines()]


def of_record(told: dict[str, Any]) -> Said:
    assert told["error"] is None
    numbers = told.get("values") or {score["label"]: score["probability"] for score in told["top"]}
    return Said(set(told.get("labels", [told["label"]])) - {None}, numbers)


@pytest.fixture(scope="session")
def by_page(
    trained: dict[str, Trained], node: str, serve: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[Said]]:
    """Asks about all in one Chromium, which takes longer to start than to answer."""
    drive = clients.page_driver(node, tmp_path_factory.mktemp("browser"))
    steps, first = [], {}
    for task, (file, pictures, _) in trained.items():
        first[task] = len(steps) + 2  # behind the page's first state, and that of the opened model
        steps += [{"model": str(file)}, *({"picture": str(path)} for path in pictures)]
    states = drive(serve(trained[TASKS[0]].file), *steps)
    return lambda task: [of_state(state) for state in states[first[task] : first[task] + PICTURES]]


def of_state(state: clients.State) -> Said:
    assert state["error"] is None
    predicted = {score["label"] for score in state["scores"] if score["predicted"]}
    return Said(predicted, {score["label"]: score["probability"] for score in state["scores"]})


@pytest.mark.parametrize("client", ["by_node", "by_cpp", "by_page"])
@pytest.mark.parametrize("task", TASKS)
def test_every_client_says_what_python_says(
    task: str, client: str, trained: dict[str, Trained], request: pytest.FixtureRequest
):
    said = request.getfixturevalue(client)(task)
    for ours, theirs in zip(trained[task].answers, said, strict=True):
        assert theirs.labels == set(ours.decisions)
        expected = ours.values or dict(ours.top(len(ours.labels)))
        assert theirs.numbers == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize("task", TASKS)
def test_the_pictures_are_told_apart(task: str, trained: dict[str, Trained]):
    """Otherwise equal labels would prove little."""
    answers = trained[task].answers
    assert len(answers) == PICTURES
    if task == REGRESSION:
        assert np.ptp([item.logits for item in answers], axis=0).min() > 1
    if task == SINGLE_LABEL:
        assert any(item.label != item.top(1)[0].label for item in answers), "no threshold decides"
    assert len({item.decisions for item in answers}) >= {SINGLE_LABEL: 2, MULTI_LABEL: 4, REGRESSION: 1}[task]
