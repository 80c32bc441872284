"""Fixtures of the tests that run the examples: a model file, pictures, and Python's own answer to compare with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import clients
import numpy as np
import pytest
import tiny_fused_model
import tiny_task_model
import tiny_text_model
from onnx_bytes import metadata
from PIL import Image, ImageDraw

import clip_toolkit
from clip_toolkit.classifier import Classifier
from clip_toolkit.files.locate import find_model
from clip_toolkit.spec.model_file import read_spec
from clip_toolkit.spec.tasks import SINGLE_LABEL, TASKS


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in demo, whatever lies in the folder that the tests are started from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        return find_model().path


@pytest.fixture(scope="session")
def classifier(model: Path) -> Classifier:
    return clip_toolkit.load(model, device="cpu", resize="graph")


@pytest.fixture(scope="session")
def expected(classifier: Classifier) -> Callable[[Path], dict[str, float]]:
    """Python's probability of each label, most probable first."""
    return lambda path: {
        score.label: score.probability for score in classifier.predict(path).top(len(classifier.spec.labels))
    }


@pytest.fixture(scope="session")
def pictures(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """PNG files of several shapes, by name."""
    size = read_spec(model).preprocessing.size
    shapes = {
        "portrait": (240, 321),
        "landscape": (640, 427),
        "model-size": (size, size),
        "odd": (37, 41),
        "smaller": (9, 7),
        "large": (1400, 1201),
    }
    folder = tmp_path_factory.mktemp("pictures")
    paths = {name: folder / f"{name}.png" for name in shapes}
    for seed, (name, shape) in enumerate(shapes.items()):
        draw(shape, seed).save(paths[name])
    return paths


@pytest.fixture
def transparent(pictures: dict[str, Path], tmp_path: Path) -> Path:
    """A PNG that fades to transparent."""
    path = tmp_path / "transparent.png"
    image = Image.open(pictures["landscape"])
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(path)
    return path


@pytest.fixture
def photo(pictures: dict[str, Path], tmp_path: Path) -> Callable[[int], Path]:
    """Makes a JPEG of an EXIF orientation, 1 to 8."""

    def make(orientation: int) -> Path:
        path = tmp_path / f"photo-{orientation}.jpg"
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.open(pictures["portrait"]).save(path, quality=90, exif=exif)
        return path

    return make


@pytest.fixture(scope="session")
def broken(model: Path, pictures: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that are no picture or no model, by name."""
    png, onnx = pictures["portrait"].read_bytes(), model.read_bytes()
    contents = {
        "text.png": b"not a picture",
        "empty.png": b"",
        "cut.png": png[: len(png) // 2],
        "text.onnx": b"not a model",
        "empty.onnx": b"",
        "cut.onnx": onnx[: len(onnx) // 2],
        "foreign.onnx": onnx.replace(b"clip_toolkit", b"clip_foreign"),
        "newer.onnx": onnx.replace(b'"version":"1.', b'"version":"9.'),
        "fused.onnx": tiny_fused_model.model(),
        "several.onnx": tiny_task_model.model_of_several(),
        "text-tower.onnx": tiny_text_model.model(),
        "pixels.onnx": onnx.replace(b'"input":"image"', b'"input":"pixel"'),
        # Of the same length, and in files from before there were tasks too.
        "task.onnx": onnx.replace(b'"ops":"ort"', b'"task":"xx"').replace(
            b'"task":"single-label"', b'"task":"ordinal-rank"'
        ),
        "threshold.onnx": onnx + metadata(replace(read_spec(model), thresholds={"circle": 0.5}).to_json()),
    }
    folder = tmp_path_factory.mktemp("broken")
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents} | {"missing.png": folder / "missing.png"}


@pytest.fixture
def calibrated(tmp_path: Path) -> Path:
    """A file that gives sets of labels."""
    path = tmp_path / "calibrated.onnx"
    path.write_bytes(tiny_task_model.model(SINGLE_LABEL, coverage=True))
    return path


@pytest.fixture(scope="session")
def of_task(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model file of each task, single-label with a threshold."""
    folder = tmp_path_factory.mktemp("tasks")
    for task in TASKS:
        (folder / f"{task}.onnx").write_bytes(tiny_task_model.model(task))
    return {task: folder / f"{task}.onnx" for task in TASKS}


@pytest.fixture
def fused(tmp_path: Path) -> Path:
    """A model file that reads a text with each picture."""
    path = tmp_path / "fused.onnx"
    path.write_bytes(tiny_fused_model.model())
    return path


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """PNG files of all colours, on which the models of `of_task` answer all they can; the last one is grey."""
    folder = tmp_path_factory.mktemp("colours")
    paths = [folder / f"{number}.png" for number in range(24)]
    for number, path in enumerate(paths):
        draw((30, 20), number).save(path)
    Image.new("RGB", (8, 8), (128, 128, 128)).save(paths[-1])
    return paths


@pytest.fixture(scope="session")
def node() -> str:
    """Path of Node.js."""
    return shutil.which("node") or pytest.skip("Node.js is not installed")


@pytest.fixture(scope="session")
def node_example(node: str) -> clients.Run:
    return clients.node_example(node)


@pytest.fixture(scope="session")
def cpp_example(tmp_path_factory: pytest.TempPathFactory) -> clients.Run:
    return clients.cpp_example(tmp_path_factory.mktemp("cpp"))


@pytest.fixture(scope="session")
def serve(node: str) -> Iterator[Callable[[Path], str]]:
    """Starts the page's server for a model file and returns the page's address."""
    with clients.page_server(node) as start:
        yield start


@pytest.fixture
def drive(node: str, tmp_path: Path) -> clients.Drive:
    """Opens the page, takes steps, and returns what it shows at first and after each of them."""
    return clients.page_driver(node, tmp_path / "profile")


def draw(shape: tuple[int, int], seed: int) -> Image.Image:
    """A coloured shape on a blurred background, as photographs are: smooth, with some edges."""
    random = np.random.default_rng(seed)
    width, height = shape
    blocks = Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    image = blocks.resize(shape, Image.Resampling.BICUBIC)
    box = (width * 0.2, height * 0.25, width * 0.8, height * 0.85)
    paint = ImageDraw.Draw(image)
    outline = paint.ellipse if seed % 2 else paint.rectangle
    outline(box, fill=tuple(int(value) for value in random.integers(0, 256, 3)))
    return image
