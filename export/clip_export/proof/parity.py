"""The proof: an exported file, run by the shipped runtime, against the PyTorch model, from image bytes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_export.graph.preprocessing import GraphPreprocessor, preprocess_graph
from clip_export.proof.reference import Reference
from clip_toolkit import Classifier, Outputs, decode
from clip_toolkit.errors import ParityError
from clip_toolkit.replay import Drift
from clip_toolkit.spec.receipts import Differences, ParityReceipt

BATCHES = (1, 2, 5)
"""Batch sizes the proof runs: a batch dimension that was baked in shows at once."""

TOLERANCE = 1e-4
"""Largest allowed difference with identical pixels; of the logits relative to the logit scale."""

GRAPH_TOLERANCE = 2e-2
"""The same where the graph resizes, which may move a few pixel values by one step."""

GRAPH_PIXELS = 2
"""Steps of 1/255 by which the graph's resize may be off Pillow's: one when it shrinks, two when it enlarges."""


def prove(
    classifier: Classifier, files: Sequence[bytes], expected: Reference, texts: Sequence[str] | None = None
) -> ParityReceipt:
    """Compare an exported file with PyTorch's answers.

    Args:
        classifier: the exported file, or one of its heads, on the CPU.
        files: image files.
        expected: PyTorch's answers to them.
        texts: that go with them, for a model that reads texts.

    Raises:
        ParityError: a difference is out of tolerance; the message names it.
    """
    scale = float(np.abs(expected.logits).max())
    if not np.isfinite(scale):
        raise ParityError("the PyTorch model itself answers NaN or infinity: encoder or head hold damaged weights.")
    pillow = _pillow_differences(classifier, files, texts, expected)
    graph = None
    if classifier.spec.input == "image":
        graph = _graph_differences(classifier, files, texts, expected)
    receipt = ParityReceipt(
        images=len(files),
        shapes=tuple(f"{image.shape[0]}x{image.shape[1]}" for image in map(decode, files)),
        batches=BATCHES,
        logit_scale=scale,
        tolerance=TOLERANCE,
        pillow=pillow,
        graph=graph,
        texts=len(texts or ()),
    )
    check(receipt)
    return receipt


def check(receipt: ParityReceipt) -> None:
    """Hold a receipt against the tolerances.

    Raises:
        ParityError: a difference is out of tolerance, or not a number.
    """
    _check_path("Pillow's resize", receipt.pillow, receipt.logit_scale, TOLERANCE, 0)
    if receipt.graph is not None:
        _check_path("the graph's resize", receipt.graph, receipt.logit_scale, GRAPH_TOLERANCE, GRAPH_PIXELS)


def check_second_opinions(opinions: Mapping[str, Mapping[str, float]], scale: float) -> None:
    """Hold the differences of other exporters' files against the same tolerance.

    Raises:
        ParityError: PyTorch and a second opinion do not agree.
    """
    for name, found in opinions.items():
        if not (found["logits"] <= TOLERANCE * scale and found["embedding"] <= TOLERANCE):
            raise ParityError(f"cross-check: {name} differs from PyTorch by {dict(found)}. No file was written.")


def _check_path(name: str, found: Differences, scale: float, tolerance: float, pixels: int) -> None:
    bounds = {
        "pixels": pixels,
        "embedding": tolerance,
        "logits": tolerance * scale,
        "probabilities": tolerance,
    }
    check_bounds(name, found, bounds)


def check_bounds(name: str, found: object, bounds: Mapping[str, float]) -> None:
    """Hold differences, attributes of ``found``, against bounds of the same names.

    Raises:
        ParityError: a difference is out of bounds, or not a number.
    """
    for stage, bound in bounds.items():
        difference = getattr(found, stage)
        if not difference <= bound:  # so that NaN fails too
            raise ParityError(
                f"parity with {name}: {stage} differ from PyTorch's by {difference:.3g}, more than {bound:.3g}. "
                "No file was written. Please report this with the encoder's name."
            )


def check_replay(drifts: Iterable[Drift]) -> None:
    """Refuse a file whose selftest fails.

    Raises:
        ParityError: a drift is out of tolerance; the message names it.
    """
    for drift in drifts:
        if not drift.passed:
            resize = "" if drift.path == "text" else f" with the {drift.path} resize"
            raise ParityError(
                f"selftest{resize}: {drift.output} drift by {drift.drift:.3g}, more than {drift.tolerance:.3g}. "
                "No file was written."
            )


def _pillow_differences(
    classifier: Classifier, files: Sequence[bytes], texts: Sequence[str] | None, expected: Reference
) -> Differences:
    """Every batch size, and so several amounts of padding, through the same call that apps use."""
    pixels = [classifier.pixels(file) for file in files]
    runs = [_stacked(list(classifier.predict_many(files, batch, texts=texts))) for batch in BATCHES]
    return _differences(pixels, runs, expected)


def _graph_differences(
    classifier: Classifier, files: Sequence[bytes], texts: Sequence[str] | None, expected: Reference
) -> Differences:
    """Raw images straight into the file; a batch holds one image several times, since its sizes must agree."""
    resize = GraphPreprocessor(preprocess_graph(classifier.spec.preprocessing))
    images = [decode(file) for file in files]
    pixels = [resize(image) for image in images]
    runs = [
        Outputs(*(np.stack(column) for column in zip(*_last_rows(classifier, images, texts, batch), strict=True)))
        for batch in BATCHES
    ]
    return _differences(pixels, runs, expected)


def _last_rows(
    classifier: Classifier, images: list[NDArray[np.uint8]], texts: Sequence[str] | None, batch: int
) -> Iterator[list[NDArray[Any]]]:
    for image, text in zip(images, texts or [""] * len(images), strict=True):
        tokens = None if classifier.tokenizer is None else classifier.tokenizer.encode([text] * batch)
        outputs = classifier.run(np.repeat(image[None], batch, axis=0), tokens)
        yield [output[-1] for output in outputs]


def _stacked(predictions: list[Any]) -> Outputs:
    return Outputs(*(np.stack([getattr(item, name) for item in predictions]) for name in Outputs._fields))


def _differences(pixels: list[NDArray[np.uint8]], runs: list[Outputs], expected: Reference) -> Differences:
    pairs = zip(pixels, expected.pixels, strict=True)
    steps = np.concatenate([np.abs(found.astype(int) - wanted.astype(int)).ravel() for found, wanted in pairs])
    worst = {
        name: max(float(np.abs(getattr(run, name) - getattr(expected, name)).max(initial=0)) for run in runs)
        for name in Outputs._fields
    }
    return Differences(pixels=int(steps.max()), pixels_share=float((steps > 0).mean()), **worst)
