"""One pass over labelled images for one model or several: each image is decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.classifier import Classifier
from clip_toolkit.data.dataset import Dataset
from clip_toolkit.errors import DatasetError, ImageError
from clip_toolkit.explaining.mistakes import Relevance
from clip_toolkit.images import decode
from clip_toolkit.judging.answers import Answers, Array
from clip_toolkit.prediction import Prediction
from clip_toolkit.spec.decisions import decide
from clip_toolkit.stream.pipeline import chunks, in_order

_ROUNDS = 10  # of timing a batch; the fastest counts, which other work on the machine disturbs least

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Run:
    """What models answer to the same images.

    Attributes:
        dataset: the images that could be read.
        answers: of each model, with the labels in the order of the first.
        errors: what is wrong with the others, one line each.
        cut: texts of which a model did not read the end.
        embedding: ``[n, dim]``, of the first model.
        novelty: of each model ``[n]``; None of one that does not tell it.
        relevance: of each model; None of one that does not tell it.
        milliseconds: of each model, an image in a batch without decoding: the fastest of runs that took turns.
    """

    dataset: Dataset
    answers: tuple[Answers, ...]
    errors: tuple[str, ...]
    cut: int
    embedding: Array
    novelty: tuple[Array | None, ...]
    relevance: tuple[Relevance | None, ...]
    milliseconds: tuple[float, ...]


def run_models(
    classifiers: Sequence[Classifier],
    dataset: Dataset,
    batch_size: int = 8,
    step: Callable[[bool], None] = lambda _: None,
) -> Run:
    """Run models over a data set.

    Args:
        classifiers: of the same task and the same labels.
        dataset: its labels in the order of the first model.
        batch_size: images per run.
        step: called for each image with whether it failed.

    Raises:
        DatasetError: none of the images can be read.
        ModelError: ONNX Runtime fails.
    """
    timed: list[list[Pixels]] = []

    def work(rows: list[int]) -> list[ImageError | list[Prediction]]:
        read = [_pixels(classifiers, dataset.files[row]) for row in rows]
        good = [(row, item) for row, item in zip(rows, read, strict=True) if not isinstance(item, ImageError)]
        texts = [dataset.texts[row] if dataset.texts is not None else None for row, _ in good]
        batches = [[item[number] for _, item in good] for number in range(len(classifiers))]
        if good and not timed:
            timed.extend(batches)
        found = [model.predict_pixels(batch, texts) for model, batch in zip(classifiers, batches, strict=True)]
        answers = iter(zip(*found, strict=True))
        return [item if isinstance(item, ImageError) else list(next(answers)) for item in read]

    results: list[ImageError | list[Prediction]] = []
    for found in in_order(chunks(range(len(dataset.files)), batch_size), work, classifiers[0].threads):
        results += found
        for item in found:
            step(isinstance(item, ImageError))
    kept = [row for row, item in enumerate(results) if not isinstance(item, ImageError)]
    errors = tuple(str(item) for item in results if isinstance(item, ImageError))
    if not kept:
        raise DatasetError(f"{dataset.source}: none of the {len(results)} images can be read; the first: {errors[0]}")
    predictions = [item for item in results if not isinstance(item, ImageError)]
    of_each = [[item[number] for item in predictions] for number in range(len(classifiers))]
    read = dataset.subset(kept)
    answers = tuple(_answers(classifier, read, found) for classifier, found in zip(classifiers, of_each, strict=True))
    cut = sum(any(each.text_truncated for each in item) for item in predictions)
    texts = None if read.texts is None else list(read.texts)
    first = np.stack([item[0].embedding for item in predictions])
    novelty = tuple(map(_novelty, of_each))
    relevance = tuple(map(_relevance, classifiers, of_each))
    with _without_maps(classifiers):
        milliseconds = _milliseconds(classifiers, timed, texts)
    return Run(read, answers, errors, cut, first, novelty, relevance, milliseconds)


def _pixels(classifiers: Sequence[Classifier], path: Path) -> list[Pixels] | ImageError:
    first, *others = classifiers
    try:
        if all(other.options != first.options for other in others):  # JPEGs that are scaled down as they are decoded
            return [classifier.pixels(path) for classifier in classifiers]
        if all(other.spec.preprocessing == first.spec.preprocessing for other in others):
            return [first.pixels(path)] * len(classifiers)
        image = decode(path, first.options)
    except ImageError as error:
        return error
    try:
        return [classifier.pixels(image) for classifier in classifiers]
    except ImageError as error:  # that does not know the name of what was decoded
        return ImageError(f"{path}: {error}")


def _answers(classifier: Classifier, dataset: Dataset, predictions: Sequence[Prediction]) -> Answers:
    spec = classifier.spec
    columns = [spec.labels.index(label) for label in dataset.labels]
    logits = np.stack([item.logits for item in predictions])[:, columns]
    found = np.stack([item.probabilities for item in predictions])
    probabilities = found[:, columns] if found.shape[1] else found
    decided = decide(probabilities, spec.task, dataset.labels, spec.thresholds)
    return Answers(spec.task, dataset.labels, dataset.targets, logits, probabilities, decided)


def _novelty(predictions: Sequence[Prediction]) -> Array | None:
    found = [item.novelty for item in predictions]
    return None if None in found else np.array(found, np.float64)


def _relevance(classifier: Classifier, predictions: Sequence[Prediction]) -> Relevance | None:
    maps = {row: item.relevance for row, item in enumerate(predictions) if item.relevance is not None}
    return Relevance(maps, classifier.spec.preprocessing) if maps else None


@contextmanager
def _without_maps(classifiers: Sequence[Classifier]) -> Iterator[None]:
    explained = [classifier.explains for classifier in classifiers]
    try:
        for classifier in classifiers:
            classifier.explains = False
        yield
    finally:
        for classifier, was in zip(classifiers, explained, strict=True):
            classifier.explains = was


def _milliseconds(
    classifiers: Sequence[Classifier], batches: Sequence[list[Pixels]], texts: list[str] | None
) -> tuple[float, ...]:
    took: list[list[float]] = [[] for _ in classifiers]
    for _ in range(_ROUNDS):
        for classifier, pixels, times in zip(classifiers, batches, took, strict=True):
            pairs: list[str | None] = [None] * len(pixels) if texts is None else [*texts[: len(pixels)]]
            start = perf_counter()
            classifier.predict_pixels(pixels, pairs)
            times.append(1000 * (perf_counter() - start) / len(pixels))
    return tuple(map(min, took))
