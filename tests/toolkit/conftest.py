"""Fixtures of the runtime's tests: the built-in model, damaged copies of it, and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_bytes import metadata

from clip_toolkit import Classifier, load
from clip_toolkit.files.locate import find_model
from clip_toolkit.spec.model_file import read_spec


@pytest.fixture(scope="session", autouse=True)
def _empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the tests' own: what the user has prepared would be opened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder and no model in the environment."""
    monkeypatch.delenv("CLIP_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the built-in model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CLIP_MODEL", raising=False)
        patch.chdir(tmp_path_factory.mktemp("empty"))
        return find_model().path


@pytest.fixture(scope="session")
def classifier(demo: Path) -> Classifier:
    """The built-in model on the CPU."""
    return load(demo, device="cpu")


@pytest.fixture
def edited(demo: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the built-in model whose spec was changed by a function, or replaced by a text."""

    def make(change: Callable[[dict[str, Any]], object] | str) -> Path:
        if isinstance(change, str):
            text = change
        else:
            data = json.loads(read_spec(demo).to_json())
            change(data)
            text = json.dumps(data)
        path = tmp_path / "edited.onnx"
        path.write_bytes(demo.read_bytes() + metadata(text))
        return path

    return make


@pytest.fixture(scope="session")
def pixels() -> NDArray[np.uint8]:
    """An RGB picture of 60 x 90 pixels with a gradient, an edge and some grain."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:60, 0:90]
    picture = np.stack([rows * 4, columns * 2.5, 255 - rows * 2], axis=-1) + rng.normal(0, 6, (60, 90, 3))
    picture[20:40, 30:60] = (250, 30, 40)
    return picture.clip(0, 255).astype(np.uint8)
