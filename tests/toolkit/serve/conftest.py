"""A service in a thread of this process, asked over a real connection."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_fused_model
import tiny_task_model
import tiny_text_model
from numpy.typing import NDArray
from PIL import Image
from serve_client import Client

pytest.importorskip("starlette", reason="needs the serve extra")

from clip_serve import ServeOptions, create_app
from clip_serve.options import AddressOptions
from clip_serve.server import bind, graceful_server
from clip_toolkit.spec.tasks import TASKS


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[[ServeOptions], Client]]:
    """Starts services that run until the tests end."""
    running = []

    def run(options: ServeOptions) -> Client:
        app = create_app(options)
        listener = bind(AddressOptions(port=0))
        listener.listen()  # who connects before the thread has started waits
        server = graceful_server(app, options)
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        running.append((server, thread))
        return Client(app, port)

    yield run
    for server, _ in running:
        server.should_exit = True
    for _, thread in running:
        thread.join(20)


@pytest.fixture(scope="session")
def models(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model files of every kind, by name."""
    folder = tmp_path_factory.mktemp("models")
    contents = {task: tiny_task_model.model(task) for task in TASKS}
    contents |= {"fused": tiny_fused_model.model(), "text": tiny_text_model.model()}
    for name, content in contents.items():
        (folder / f"{name}.onnx").write_bytes(content)
    return {"demo": demo} | {name: folder / f"{name}.onnx" for name in contents}


@pytest.fixture(scope="session")
def client(start: Callable[[ServeOptions], Client], models: dict[str, Path]) -> Client:
    """A service with all of them, the built-in model first."""
    return start(ServeOptions(models=tuple(map(str, models.values())), quiet=True))


@pytest.fixture(scope="session")
def images(pixels: NDArray[np.uint8]) -> list[bytes]:
    """Encoded images that differ: JPEG, and PNG with transparency."""
    found = []
    for turn in range(4):
        picture = Image.fromarray(np.rot90(pixels, turn).copy())
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG")
        found.append(buffer.getvalue())
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("RGBA").resize((30, 20)).save(buffer, "PNG")
    return [*found, buffer.getvalue()]
