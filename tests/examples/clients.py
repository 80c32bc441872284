"""The example clients as tests run them: Node.js, the page in headless Chromium, and the C++ program."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NODE, BROWSER, CPP = EXAMPLES / "node", EXAMPLES / "browser", EXAMPLES / "cpp"
DRIVER = Path(__file__).with_name("drive_page.mjs")
PLAYWRIGHT = BROWSER / "node_modules" / "playwright-core" / "index.mjs"
ONNXRUNTIME = os.environ.get("ONNXRUNTIME_ROOT", "/usr")

Run = Callable[..., subprocess.CompletedProcess[str]]
State = dict[str, Any]
Drive = Callable[..., list[State]]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=300)


def node_example(node: str) -> Run:
    """Run ``classify.mjs``."""
    if not (NODE / "node_modules").is_dir():
        pytest.skip("the packages of examples/node are not installed. Run: make examples")
    return lambda *arguments: run(node, NODE / "classify.mjs", *arguments)


def cpp_example(build: Path) -> Run:
    """Build the program against ONNXRUNTIME_ROOT's headers and the library of the Python package."""
    headers = [Path(ONNXRUNTIME, "include", folder, "onnxruntime_cxx_api.h") for folder in ("", "onnxruntime")]
    if not shutil.which("cmake") or not any(header.is_file() for header in headers):
        pytest.skip(
            "CMake or ONNX Runtime's C++ headers are missing. Install libonnxruntime-dev and nlohmann-json3-dev, or "
            "unpack a release of ONNX Runtime and set ONNXRUNTIME_ROOT to its folder"
        )
    options = [f"-DONNXRUNTIME_ROOT={ONNXRUNTIME}", f"-DONNXRUNTIME_LIBRARY={_python_library(build)}"]
    for command in (["-S", CPP, "-B", build, *options], ["--build", build]):
        built = run("cmake", *command)
        assert built.returncode == 0, built.stdout + built.stderr
    return lambda *arguments: run(build / "classify", *arguments)


def _python_library(folder: Path) -> Path:
    """The Python package's shared library, under the name that the loader will look for."""
    [package] = importlib.util.find_spec("onnxruntime").submodule_search_locations
    [library] = Path(package, "capi").glob("libonnxruntime.so.*")
    link = folder / "libonnxruntime.so.1"
    link.symlink_to(library)
    return link


@contextmanager
def page_server(node: str) -> Iterator[Callable[[Path], str]]:
    """Start the example's own server for a model file; give the page's address."""
    if not PLAYWRIGHT.is_file():
        pytest.skip("the packages of examples/browser are not installed. Run: make examples")
    running = []

    def start(model: Path) -> str:
        command = [node, str(BROWSER / "serve.mjs"), str(model), "--port", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(server)
        return server.stdout.readline().strip()

    try:
        yield start
    finally:
        for server in running:
            with server:
                server.terminate()


def page_driver(node: str, profile: Path) -> Drive:
    """Open the page, take steps, and return what it shows at first and after each of them."""
    chromium = shutil.which("chromium") or pytest.skip("Chromium is not installed. Run: apt-get install chromium")

    def drive(url: str, *steps: dict[str, str], troubles: int = 0) -> list[State]:
        command = [node, str(DRIVER), str(PLAYWRIGHT), chromium, url, str(profile)]
        ran = subprocess.run(command, input=json.dumps(steps), capture_output=True, text=True, check=False, timeout=600)
        assert ran.returncode == 0, ran.stderr
        result = json.loads(ran.stdout)
        assert len(result["troubles"]) == troubles, result["troubles"]
        return result["states"]

    return drive
