"""Decoding in worker processes: the same pixels, and an image that harms a worker costs itself alone."""

import io
import os
import signal
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_toolkit import Classifier, load
from clip_toolkit.errors import ImageError, ImageNotFoundError, TransientImageError
from clip_toolkit.images import DecodeOptions
from clip_toolkit.images.preparing import Preparation
from clip_toolkit.runtime.isolation import IsolatedPreparation, Limits
from clip_toolkit.spec.model_file import read_spec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no limit on memory holds")


@pytest.fixture(scope="module")
def isolated(demo: Path) -> Classifier:
    return load(demo, device="cpu", isolate=Limits(memory=96, seconds=5))


def _encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def _bomb() -> bytes:
    """A PNG of 9000 x 9000 white pixels in some 30 KB, which no limit on pixels refuses: 324 MB in Pillow."""
    side = 9000
    packed = zlib.compressobj(1)
    rows = b"".join(packed.compress(b"\0" + b"\xff" * (3 * side)) for _ in range(side)) + packed.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def test_pixels_are_those_of_this_process(isolated: Classifier, classifier: Classifier, pixels: np.ndarray):
    Path("image.png").write_bytes(_encoded(pixels))
    for source in ("image.png", Path("image.png"), _encoded(pixels, "JPEG"), pixels):
        np.testing.assert_array_equal(isolated.pixels(source), classifier.pixels(source))
    opened = (io.BytesIO(_encoded(pixels)) for _ in range(2))
    np.testing.assert_array_equal(isolated.pixels(next(opened)), classifier.pixels(next(opened)))


def test_with_the_graphs_resize_the_whole_image_comes_back(demo: Path, pixels: np.ndarray):
    prepare = Preparation(DecodeOptions(), read_spec(demo).preprocessing, in_graph=True)
    found = IsolatedPreparation(prepare, Limits(), threads=1)(_encoded(pixels))
    np.testing.assert_array_equal(found, pixels)


def test_errors_keep_their_kind_and_text(isolated: Classifier, classifier: Classifier):
    for source, kind in (("none.png", ImageNotFoundError), (b"no image", ImageError)):
        with pytest.raises(kind) as found:
            isolated.pixels(source)
        with pytest.raises(kind) as expected:
            classifier.pixels(source)
        assert (type(found.value), str(found.value)) == (type(expected.value), str(expected.value))


def test_what_takes_too_much_memory_costs_itself_alone(isolated: Classifier, pixels: np.ndarray):
    good = _encoded(pixels)
    answers = list(isolated.predict_many([good, _bomb(), good], errors="return", batch_size=1))
    assert isinstance(answers[1], TransientImageError)
    assert "memory" in str(answers[1])
    assert answers[0].label == answers[2].label


HARM = """
import os, sys, time
from clip_toolkit.runtime import worker
answer = worker._answer
def harmed(answers, prepare, image):
    kind = image.decode(errors="replace") if isinstance(image, bytes) else ""
    if kind == "crash":
        os.abort()
    if kind == "spin":
        while True:
            pass
    if kind == "lie":
        answers.write(b'{"shape": [1000000, 1000000, 3]}\\n')
        answers.flush()
    elif kind == "riddle":
        answers.write(b'{"error": "none of ours"}\\n')
        answers.flush()
    elif kind == "junk":
        answers.write(b"no answer" * 2000)
        answers.flush()
    else:
        answer(answers, prepare, image)
worker._answer = harmed
worker.main()
"""


@pytest.fixture
def harmed(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IsolatedPreparation:
    """An isolated preparation whose worker does on a word what a hostile file may make a decoder do."""
    (tmp_path / "harm.py").write_text(HARM)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nshift 3\nexec {sys.executable} {tmp_path / "harm.py"} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return IsolatedPreparation(Preparation(DecodeOptions(), read_spec(demo).preprocessing), Limits(96, 3), threads=1)


@pytest.mark.parametrize(
    ("harm", "said"),
    [("crash", "-6"), ("spin", "more than the 3 seconds"), ("lie", "ended"), ("riddle", "ended"), ("junk", "ended")],
)
def test_a_worker_that_fails_is_replaced(
    harmed: IsolatedPreparation, classifier: Classifier, pixels: np.ndarray, harm: str, said: str
):
    with pytest.raises(TransientImageError, match=said):
        harmed(harm.encode())
    np.testing.assert_array_equal(harmed(_encoded(pixels)), classifier.pixels(_encoded(pixels)))


def test_a_worker_that_was_killed_while_idle_is_replaced(demo: Path, classifier: Classifier, pixels: np.ndarray):
    prepare = IsolatedPreparation(Preparation(DecodeOptions(), read_spec(demo).preprocessing), Limits(), threads=1)
    prepare(_encoded(pixels))
    worker = prepare._workers.queue[0]
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.wait()
    np.testing.assert_array_equal(prepare(_encoded(pixels)), classifier.pixels(_encoded(pixels)))


def test_fewer_workers_where_the_container_would_not_hold_all(demo: Path, monkeypatch: pytest.MonkeyPatch):
    prepare = Preparation(DecodeOptions(), read_spec(demo).preprocessing)
    monkeypatch.setattr("clip_toolkit.runtime.isolation.memory_limit", lambda: 300 * 2**20)
    assert IsolatedPreparation(prepare, Limits(memory=256), threads=8)._workers.qsize() == 1
    assert IsolatedPreparation(prepare, Limits(memory=64), threads=8)._workers.qsize() == 2
