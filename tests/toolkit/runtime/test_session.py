"""Sessions: one run at a time where a provider needs that, and files that other processes open again."""

import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_text_model
from numpy.typing import NDArray

from clip_toolkit import Classifier, ModelError, Prediction, TextEncoder, load, load_text
from clip_toolkit.runtime.devices import CPU, PROVIDERS
from clip_toolkit.runtime.session import Session, open_graph

Pixels = NDArray[np.uint8]


@pytest.fixture
def in_another_process(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Call a function in a process of a pool."""
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))  # or the test runner would start again there

    def call(function: Callable[..., Any], *arguments: object) -> Any:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()

    return call


def reopened(pickled: bytes) -> Classifier:
    return pickle.loads(pickled)  # noqa: S301  # our own bytes


def test_a_classifier_answers_the_same_in_another_process(
    demo: Path, pixels: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_another_process: Callable[..., Any]
):
    (tmp_path / "here.onnx").write_bytes(demo.read_bytes())
    classifier = load("here.onnx", device="cpu", threads=1, max_pixels=10**6, prepack=False)
    monkeypatch.chdir(os.sep)  # the other process has another working folder
    found: Prediction = in_another_process(classifier.predict, pixels)
    assert np.array_equal(found.probabilities, classifier.predict(pixels).probabilities)
    assert found.labels == classifier.spec.labels
    copy = reopened(pickle.dumps(classifier))
    assert (copy.threads, copy.options, copy.resize) == (1, classifier.options, "pillow")
    assert copy.spec == classifier.spec


def test_runs_of_one_thread_give_the_same_answers(demo: Path, pixels: Pixels):
    usual, many = (load(demo, device="cpu", threads=2, throughput=throughput) for throughput in (False, True))
    assert (many.threads, reopened(pickle.dumps(many))._session.opening) == (2, many._session.opening)
    inside = [each._session._inner.get_session_options().intra_op_num_threads for each in (usual, many)]
    assert inside == [2, 1]
    images = [pixels, pixels[::2], pixels[:, ::-1]] * 4
    for one, other in zip(usual.predict_many(images, 2), many.predict_many(images, 2), strict=True):
        assert np.array_equal(one.logits, other.logits)
        assert np.array_equal(one.embedding, other.embedding)


def test_the_graphs_resize_stays_when_a_classifier_is_copied(demo: Path):
    assert reopened(pickle.dumps(load(demo, device="cpu", resize="graph"))).resize == "graph"


def test_a_pickled_model_without_maps_stays_without_them(demo: Path):
    model = load(demo, device="cpu")
    assert reopened(pickle.dumps(model)).explains
    model.explains = False
    assert not reopened(pickle.dumps(model)).explains


def test_a_text_encoder_answers_the_same_in_another_process(tmp_path: Path, in_another_process: Callable[..., Any]):
    pytest.importorskip("tokenizers", reason="needs the text extra")
    path = tmp_path / "text.onnx"
    path.write_bytes(tiny_text_model.model())
    encoder: TextEncoder = load_text(path, device="cpu")
    assert np.array_equal(in_another_process(encoder.encode, ["red circle"]), encoder.encode(["red circle"]))


def test_another_model_in_the_place_of_a_pickled_one_is_refused(demo: Path, edited: Callable[..., Path]):
    path = edited(lambda data: data.update(labels=data["labels"][::-1]))
    pickled = pickle.dumps(load(path, device="cpu"))
    path.write_bytes(demo.read_bytes())
    with pytest.raises(ModelError, match=r"edited\.onnx: holds another model"):
        reopened(pickled)


def test_what_has_no_file_cannot_be_pickled(classifier: Classifier, demo: Path):
    without = Classifier(classifier.spec, open_graph(demo.read_bytes()))
    with pytest.raises(TypeError, match="not opened from a file"):
        pickle.dumps(without)


def test_a_provider_that_bears_one_run_at_a_time_gets_one():
    def run(*_: object) -> list[object]:
        assert session._turn.locked()
        return []

    session = Session(SimpleNamespace(run=run), PROVIDERS["directml"])
    session.run([], {})
    assert not session._turn.locked()


def test_others_run_at_the_same_time():
    together = threading.Barrier(2, timeout=60)
    session = Session(SimpleNamespace(run=lambda *_: [together.wait()]))
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(lambda _: session.run([], {}), range(2))) == [[0], [1]]


def test_what_onnxruntime_says_of_a_failed_run_stays_one_line():
    def run(*_: object) -> None:
        raise RuntimeError("invalid shape\nand a long trace")

    with pytest.raises(ModelError, match=rf"^ONNX Runtime failed on {CPU}: invalid shape$"):
        Session(SimpleNamespace(run=run)).run([], {})
