"""Predictions."""

import gc
import io
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from clip_toolkit import Classifier, ImageError, ModelError, Prediction, load
from clip_toolkit.images.preprocess import normalise
from clip_toolkit.runtime.devices import CPU
from clip_toolkit.runtime.session import Session
from clip_toolkit.spec.description import describe

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def pictures(pixels: Pixels) -> list[Pixels]:
    """Ten pictures of four sizes."""
    rng = np.random.default_rng(2)
    shapes = [(60, 90), (90, 60), (64, 64), (33, 47)]
    return [
        np.asarray(Image.fromarray(np.roll(pixels, int(rng.integers(0, 60)), axis=1)).resize(shapes[i % 4][::-1]))
        for i in range(10)
    ]


def same(first: Prediction, second: Prediction, tolerance: float = 1e-5) -> bool:
    return all(
        np.allclose(getattr(first, name), getattr(second, name), atol=tolerance)
        for name in ("probabilities", "logits", "embedding")
    )


def fake_session(classifier: Classifier, source: str, run: Callable[..., object]) -> SimpleNamespace:
    """A session with the interface of the built-in model, another input name, and a run of the test's own."""
    return SimpleNamespace(
        run=run, get_inputs=lambda: [SimpleNamespace(name=source)], get_outputs=classifier._session._inner.get_outputs
    )


def test_a_prediction_is_what_it_says(classifier: Classifier, pixels: Pixels):
    prediction = classifier.predict(pixels)
    labels = classifier.spec.labels
    assert prediction.probabilities.shape == prediction.logits.shape == (len(labels),)
    assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-6)
    exponentials = np.exp(prediction.logits - prediction.logits.max())
    np.testing.assert_allclose(prediction.probabilities, exponentials / exponentials.sum(), atol=1e-6)
    assert np.linalg.norm(prediction.embedding) == pytest.approx(1, abs=1e-5)
    assert prediction.embedding.shape == (classifier.spec.encoder.dim,)
    assert prediction.label == labels[int(prediction.probabilities.argmax())]
    assert prediction.probability == pytest.approx(float(prediction.probabilities.max()))
    assert prediction.provider == classifier.provider == "CPUExecutionProvider"


def test_top_is_sorted_and_never_longer_than_the_labels(classifier: Classifier, pixels: Pixels):
    prediction = classifier.predict(pixels)
    scores = prediction.top(1000)
    assert sorted(score.label for score in scores) == sorted(classifier.spec.labels)
    assert [score.probability for score in scores] == sorted((score.probability for score in scores), reverse=True)
    assert prediction.top(2) == scores[:2]
    assert prediction.top(1) == [(prediction.label, prediction.probability)]


def test_every_source_gives_the_same_prediction(classifier: Classifier, pixels: Pixels, tmp_path: Path):
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    expected = classifier.predict(pixels)
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), Image.open(path)):
        assert same(classifier.predict(source), expected, 0)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_many_equal_one_by_one_in_order_whatever_the_batch(
    classifier: Classifier, pictures: list[Pixels], batch_size: int
):
    many = list(classifier.predict_many(pictures, batch_size))
    assert len(many) == len(pictures)
    for picture, prediction in zip(pictures, many, strict=True):
        assert same(prediction, classifier.predict(picture))


def test_many_are_lazy(classifier: Classifier, pixels: Pixels):
    taken = 0

    def images() -> Iterator[Pixels]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield pixels

    stream = classifier.predict_many(images(), batch_size=4)
    assert taken == 0
    next(stream)
    assert taken <= 4 * (classifier.threads + 1)


def test_a_bad_image_among_many(classifier: Classifier, pixels: Pixels):
    images = [pixels, b"broken", pixels]
    good, bad, also_good = classifier.predict_many(images, errors="return")
    assert isinstance(bad, ImageError)
    assert same(good, also_good, 0)
    with pytest.raises(ImageError):
        list(classifier.predict_many(images))
    assert all(isinstance(item, ImageError) for item in classifier.predict_many([b"", b"x"], errors="return"))
    assert list(classifier.predict_many([])) == []


def test_a_returned_error_keeps_no_image_alive(classifier: Classifier, monkeypatch: pytest.MonkeyPatch):
    alive: list[weakref.ref[Image.Image]] = []
    load = ImageFile.ImageFile.load

    def noted(self: ImageFile.ImageFile) -> object:
        alive.append(weakref.ref(self))
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", noted)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "BMP")
    (error,) = classifier.predict_many([buffer.getvalue()[:-900]], errors="return")
    assert isinstance(error, ImageError)
    gc.collect()
    assert alive
    assert not any(reference() for reference in alive)


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"batch_size": -1}, {"errors": "ignore"}])
def test_wrong_arguments_are_refused_at_once(classifier: Classifier, arguments: dict[str, object]):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        classifier.predict_many([], **arguments)


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((1, 3, 8, 8), np.uint8),
        np.zeros((1, 0, 8, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
    ids=lambda batch: f"{batch.dtype} {batch.shape}",
)
def test_run_says_what_is_wrong_with_a_batch(classifier: Classifier, batch: NDArray[np.generic]):
    with pytest.raises(ImageError, match=r"expected uint8 RGB \[batch, height, width, 3\]"):
        classifier.run(batch)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_run_resizes_inside_the_graph(classifier: Classifier, pixels: Pixels, batch: int):
    outputs = classifier.run(np.repeat(pixels[None], batch, axis=0))
    expected = classifier.predict(pixels)
    for row in range(batch):
        np.testing.assert_allclose(outputs.probabilities[row], expected.probabilities, atol=1e-3)


def test_both_resizes_agree_and_are_named(demo: Path, pictures: list[Pixels]):
    graph, pillow = (load(demo, device="cpu", resize=name) for name in ("graph", "pillow"))
    assert (graph.resize, pillow.resize) == ("graph", "pillow")
    for picture in pictures:
        assert same(graph.predict(picture), pillow.predict(picture), 0.05)


def _one_label_less(data: dict[str, Any]) -> None:
    data["labels"].pop()
    data["head"]["layers"][-1] -= 1


def test_metadata_that_speaks_of_another_graph(edited: Callable[..., Path]):
    for change in (_one_label_less, lambda data: data.update(input="pixels")):
        with pytest.raises(ModelError, match=r"the metadata declares"):
            load(edited(change), device="cpu")


def test_resize_options(demo: Path, edited: Callable[..., Path]):
    assert load(demo, device="cpu").resize == "pillow"
    with pytest.raises(ModelError, match="expected one of pillow, graph"):
        load(demo, resize="nearest")
    with pytest.raises(ModelError, match="no resize in it"):
        load(edited(lambda data: data.update(input="pixels")), device="cpu", resize="graph")


def test_a_judged_file_decodes_fast_unless_told(edited: Callable[..., Path]):
    receipt = {"side": 192, "images": 20, "source": "photos", "agreement": 1.0, "min_agreement": 0.99, "flips": []}
    receipt |= {"mean_shift": 0.1, "largest_shift": 0.2, "accuracy_before": None, "accuracy_after": None}
    model = edited(lambda data: data.update(fast_decode=receipt))
    assert load(model).options.draft_side == load(model, fast_decode=True).options.draft_side == 192
    assert any("judged on 20 images" in note for note in load(model).notes)
    assert load(model, fast_decode=False).options.draft_side is None
    assert "20 images (photos)" in "\n".join(describe(load(model).spec, model))
    for wrong in ({"agreement": 0.9}, {"side": 63}):
        with pytest.raises(ModelError, match=rf"fast_decode\.{next(iter(wrong))}"):
            load(edited(lambda data, wrong=wrong: data.update(fast_decode=receipt | wrong)))


def test_another_file_decodes_exactly_unless_told(demo: Path):
    assert load(demo).options.draft_side is None
    told = load(demo, fast_decode=True)
    assert told.options.draft_side == 3 * told.spec.preprocessing.resize
    assert any("not judged" in note for note in told.notes)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_graph_resize_takes_mixed_sizes_one_by_one(demo: Path, pictures: list[Pixels], batch_size: int):
    graph = load(demo, device="cpu", resize="graph")
    for picture, prediction in zip(pictures, graph.predict_many(pictures, batch_size), strict=True):
        assert same(prediction, graph.predict(picture), 0)


def test_threads_share_one_classifier(classifier: Classifier, pictures: list[Pixels]):
    expected = [classifier.predict(picture).logits for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: (i % 10, classifier.predict(pictures[i % 10]).logits), range(160)))
    assert all(np.array_equal(logits, expected[index]) for index, logits in results)


def test_an_endless_strip_is_named(classifier: Classifier, tmp_path: Path):
    path = tmp_path / "strip.png"
    Image.new("RGB", (1, 2000)).save(path)
    with pytest.raises(ImageError, match=r"strip\.png.*1x2000"):
        classifier.predict(path)


def test_equal_probabilities_keep_the_order_of_the_labels():
    labels = tuple(f"label {i}" for i in range(100))
    pairs = np.tile(np.array([0.005, 0.015], np.float32), 50)
    top = [score.label for score in Prediction(labels, pairs, pairs, pairs, CPU).top(100)]
    assert top == [*labels[1::2], *labels[::2]]


def test_what_a_notebook_shows_of_them_is_short(classifier: Classifier, pixels: Pixels):
    for shown in (classifier, classifier.spec, classifier.predict(pixels), classifier.spec.golden[0]):
        assert len(repr(shown)) < 250
    assert repr(classifier.predict(pixels)).startswith(f"Prediction(label={classifier.predict(pixels).label!r}, prob")


def test_files_that_take_pixel_values_get_normalised_pixels_of_their_size(classifier: Classifier, pixels: Pixels):
    spec = replace(classifier.spec, input="pixels")
    given = []

    def run(_: list[str], feeds: dict[str, NDArray[np.float32]], *__: object) -> list[NDArray[np.float32]]:
        given.append(feeds)
        return [np.ones((1, len(spec.labels)), np.float32)] * 2 + [np.ones((1, spec.encoder.dim), np.float32)]

    wants_pixels = Classifier(spec, Session(fake_session(classifier, "pixel_values", run)))
    wants_pixels.predict(pixels)
    assert list(given[0]) == ["pixel_values"]
    expected = normalise(classifier.pixels(pixels)[None], spec.preprocessing)
    assert np.array_equal(given[0]["pixel_values"], expected)
    size = spec.preprocessing.size
    with pytest.raises(ImageError, match=f"takes {size}x{size} only, got {size + 1}x{size}"):
        wants_pixels.run(np.zeros((1, size, size + 1, 3), np.uint8))


def test_a_network_that_fails_is_a_model_error(classifier: Classifier, pixels: Pixels):
    def run(*_: object) -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(ModelError, match=f"{CPU}: out of memory"):
        Classifier(classifier.spec, Session(fake_session(classifier, "image", run))).predict(pixels)


@pytest.mark.parametrize("one", ["photo.png", b"bytes", Path("photo.png")])
def test_a_single_image_in_the_place_of_several_is_refused(classifier: Classifier, one: object):
    with pytest.raises(ImageError, match=r"Put it into a list: \[image\]"):
        list(classifier.predict_many(one, errors="return"))


def test_a_closed_file_is_one_error_among_answers(classifier: Classifier, pixels: np.ndarray):
    closed = io.BytesIO()
    closed.close()
    answers = list(classifier.predict_many([pixels, closed, pixels], errors="return"))
    assert isinstance(answers[1], ImageError)
    assert answers[0].label == answers[2].label
