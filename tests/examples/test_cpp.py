"""The C++ example builds, and gives Python's answers with the very same model file and library."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "examples" / "cpp"
ROOT = os.environ.get("ONNXRUNTIME_ROOT", "/usr")

TOLERANCE = 1e-4
"""Of probabilities, on the same pixels."""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def classify(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Builds the example against ONNXRUNTIME_ROOT's headers and the library of the Python package."""
    headers = [Path(ROOT, "include", folder, "onnxruntime_cxx_api.h") for folder in ("", "onnxruntime")]
    if not shutil.which("cmake") or not any(header.is_file() for header in headers):
        pytest.skip(
            "CMake or ONNX Runtime's C++ headers are missing. Install libonnxruntime-dev and nlohmann-json3-dev, or "
            "unpack a release of ONNX Runtime and set ONNXRUNTIME_ROOT to its folder"
        )
    build = tmp_path_factory.mktemp("cpp")
    options = [f"-DCMAKE_PREFIX_PATH={ROOT}", f"-DONNXRUNTIME_LIBRARY={python_library(build)}"]
    for command in (["-S", FOLDER, "-B", build, *options], ["--build", build]):
        built = run("cmake", *command)
        assert built.returncode == 0, built.stdout + built.stderr
    return lambda *arguments: run(build / "classify", *arguments)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=300)


def python_library(folder: Path) -> Path:
    """The Python package's shared library, under the name that the loader will look for."""
    [package] = importlib.util.find_spec("onnxruntime").submodule_search_locations
    [library] = Path(package, "capi").glob("libonnxruntime.so.*")
    link = folder / "libonnxruntime.so.1"
    link.symlink_to(library)
    return link


@pytest.fixture
def ppm(tmp_path: Path) -> Callable[[Path], Path]:
    def convert(path: Path) -> Path:
        converted = tmp_path / f"{path.stem}.ppm"
        Image.open(path).save(converted)
        return converted

    return convert


@pytest.mark.parametrize("name", ["portrait", "landscape", "model-size", "odd", "smaller", "large"])
def test_record_is_pythons(
    name: str,
    classify: Run,
    model: Path,
    pictures: dict[str, Path],
    ppm: Callable[[Path], Path],
    expected: Callable[[Path], dict[str, float]],
):
    path = ppm(pictures[name])
    ran = classify(model, path, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    record = json.loads(ran.stdout)
    probabilities = {score["label"]: score["probability"] for score in record["top"]}
    assert list(record) == ["image", "label", "probability", "top", "provider", "error"]
    assert (record["image"], record["label"], record["error"]) == (str(path), next(iter(probabilities)), None)
    assert list(probabilities) == list(expected(path))
    assert probabilities == pytest.approx(expected(path), abs=TOLERANCE)


def test_table_lists_all_labels(classify: Run, model: Path, pictures: dict[str, Path], ppm, expected):
    path = ppm(pictures["odd"])
    rows = classify(model, path).stdout.splitlines()
    assert [row.split("%  ")[1] for row in rows] == list(expected(path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"P3\n1 1\n255\n0 0 0\n",
        b"P6\n2 2\n255\n\x00\x00\x00",
        b"P6\n-1 2\n255\n",
        b"P6\n1 1\n65535\n\x00\x00\x00\x00\x00\x00",
        b"P6\n99999999999 99999999999\n255\n",
        b"P6\n2001 2\n255\n",
    ],
    ids=["empty", "ascii", "cut", "negative", "16-bit", "huge", "endless"],
)
def test_bad_picture(content: bytes, classify: Run, model: Path, tmp_path: Path):
    path = tmp_path / "bad.ppm"
    path.write_bytes(content)
    ran = classify(model, path)
    assert (ran.returncode, ran.stdout) == (1, "")
    [line] = ran.stderr.splitlines()
    assert line.startswith(f"classify: {path}: ")


def test_comments_in_the_header(classify: Run, model: Path, tmp_path: Path):
    path = tmp_path / "comment.ppm"
    path.write_bytes(b"P6 # made by hand\n1 # wide\n 1\n255\n\x10\x20\x30")
    assert classify(model, path).returncode == 0


@pytest.mark.parametrize(
    "name", ["missing.png", "text.onnx", "cut.onnx", "foreign.onnx", "newer.onnx", "task.onnx", "fused.onnx"]
)
def test_bad_model(name: str, classify: Run, pictures: dict[str, Path], broken: dict[str, Path], ppm):
    ran = classify(broken[name], ppm(pictures["odd"]))
    assert (ran.returncode, ran.stdout) == (1, "")
    [line] = ran.stderr.splitlines()
    assert line.startswith(f"classify: {broken[name]}: ")


@pytest.mark.parametrize("arguments", [(), ("model.onnx",), ("model.onnx", "a.ppm", "--loud")])
def test_usage(arguments: tuple[str, ...], classify: Run):
    ran = classify(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
