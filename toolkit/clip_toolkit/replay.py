"""Replaying the golden vectors: does this machine and execution provider give the answers PyTorch gave?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.classifier import Classifier
from clip_toolkit.errors import ImageError, SpecError
from clip_toolkit.images import DecodeOptions, decode
from clip_toolkit.images.preprocess import preprocess
from clip_toolkit.network import Outputs
from clip_toolkit.runtime.devices import CPU
from clip_toolkit.spec.classifier import GoldenVector
from clip_toolkit.spec.tasks import NOVELTY, REGRESSION, RELEVANCE
from clip_toolkit.spec.text_tower import GoldenText
from clip_toolkit.text.tokenization import Tokens
from clip_toolkit.text_encoder import TextEncoder

TOLERANCES = {"pillow": 1e-3, "graph": 2e-2, "text": 1e-3}
"""Largest allowed drift on the CPU provider, by the resize that was used; of a text tower's file ``text``.

Of logits and embedding relative to their largest value, of probabilities absolute. Export demands 1e-4 of the
Pillow path; other CPUs add up the same products in another order. The graph's resize may move a pixel by one step.
"""

QUANTIZED_FACTOR = 5.0
"""How much more drift a quantized file may show from its own answers where it was exported: an activation that falls on
the other side of a half becomes another integer. Arithmetic that saturates shows by orders of magnitude."""

QUANTIZED_TEXT_TOLERANCE = 5e-2
"""Of an 8-bit text tower, from its own answers where it was exported: whether activations are rounded too is up to the
processor and the number of tokens. Another batch size moved embeddings by 1e-2 of their largest value."""

OTHER_PROVIDER_FACTOR = 20.0
"""How much more drift another execution provider may show: several multiply with 10-bit mantissas by default."""

_MOST_PICTURES, _SMALLEST_SIDE = 8, 32
"""Three is what clip-export writes."""

_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Drift:
    """Largest difference from PyTorch over all golden vectors, for one output along one resize path.

    Attributes:
        path: ``pillow`` or ``graph``; ``text`` for tokens.
        output: ``probabilities``, ``logits``, ``embedding``, ``novelty`` or ``relevance``, of a further head as
            ``logits_<name>``; of texts ``tokens``, in shares of the texts.
        drift: the difference, in the unit that `TOLERANCES` explains.
        tolerance: the bound.
    """

    path: str
    output: str
    drift: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the drift is a number within the tolerance."""
        return self.drift <= self.tolerance


def selftest(classifier: Classifier) -> list[Drift]:
    """Replay the golden vectors of an open model.

    Raises:
        SpecError: the file has none, or they are damaged.
        ModelError: the network fails on them.
    """
    golden = classifier.spec.golden
    if not golden:
        raise SpecError("selftest: the file holds no golden vectors. Export the model again.")
    images = _images(golden, classifier.spec.preprocessing.resize)
    tokens = _tokens(classifier, golden)
    drifts = [
        drift
        for path, inputs in _paths(classifier, images)
        for drift in _drifts(path, _run_each(classifier, inputs, tokens), _expected(classifier, golden), classifier)
    ]
    drifts += _novelty_drifts(classifier, images, tokens)
    drifts += _relevance_drifts(classifier, images)
    read = [item for item in tokens if item is not None]
    drifts += [_token_drift(read, golden)] if read else []
    further = {name: head for name, head in classifier.heads.items() if head.spec.name != classifier.spec.name}
    for name, head in further.items():
        drifts += [
            replace(item, output=f"{item.output}_{name}") for item in selftest(head) if item.output != "embedding"
        ]
    return drifts


def _novelty_drifts(
    classifier: Classifier, images: list[NDArray[np.uint8]], tokens: list[Tokens | None]
) -> Iterator[Drift]:
    spec = classifier.spec.novelty
    if spec is None:
        return
    if len(spec.golden) != len(images):
        raise SpecError(f"selftest: the golden novelty is damaged: expected {len(images)} numbers")
    for path, inputs in _paths(classifier, images):
        found = [classifier.novelty(image[None], item) for image, item in zip(inputs, tokens, strict=True)]
        drift = _difference(np.concatenate(found), np.array(spec.golden, np.float32))
        yield Drift(path, NOVELTY, drift, _tolerance(path, classifier))


def _relevance_drifts(classifier: Classifier, images: list[NDArray[np.uint8]]) -> Iterator[Drift]:
    spec = classifier.spec.relevance
    if spec is None:
        return
    if len(spec.golden) != len(images):
        raise SpecError(f"selftest: the golden relevance is damaged: expected {len(images)} maps")
    # Of the same pixels alone: one step of 1/255 more or less may make another label the largest, and so another map.
    path, inputs = next(_paths(classifier, images))
    found = np.concatenate([classifier.relevance(image[None]) for image in inputs])
    drift = _difference(found, np.array(spec.golden, np.float32).reshape(-1, spec.rows, spec.columns))
    yield Drift(path, RELEVANCE, drift, _tolerance(path, classifier))


def _tokens(classifier: Classifier, golden: tuple[GoldenVector, ...]) -> list[Tokens | None]:
    """Of each golden vector's text by itself; none in a model that reads no text."""
    if classifier.tokenizer is None:
        return [None] * len(golden)
    if any(vector.text is None for vector in golden):
        raise SpecError("selftest: the golden vectors are damaged: the model reads text, and one of them has none")
    return [classifier.tokenizer.encode([vector.text or ""]) for vector in golden]


def _token_drift(tokens: Sequence[Tokens], golden: Sequence[GoldenVector | GoldenText]) -> Drift:
    """Share of the texts whose tokens are not PyTorch's: none may differ."""
    found = [tuple(item.input_ids[0].tolist()) for item in tokens]
    wrong = sum(ids != item.input_ids for ids, item in zip(found, golden, strict=True))
    return Drift("text", "tokens", wrong / len(found), 0.0)


def _images(golden: tuple[GoldenVector, ...], side: int) -> list[NDArray[np.uint8]]:
    """Decode the pictures; together they may have `_MOST_PICTURES` times the pixels of one of the model's size."""
    images, left = [], _MOST_PICTURES * max(side, _SMALLEST_SIDE) ** 2
    for index, vector in enumerate(golden):
        try:
            images.append(decode(vector.png, DecodeOptions(max_pixels=left)))
        except ImageError as error:
            found = str(error).partition(". ")[0]  # the remedies are for whoever owns the image
            raise SpecError(f"selftest: golden vector {index} is damaged ({found}). Export the model again.") from error
        left -= images[-1].size // 3
    return images


def _paths(classifier: Classifier, images: list[NDArray[np.uint8]]) -> Iterator[tuple[str, list[NDArray[np.uint8]]]]:
    yield "pillow", [preprocess(image, classifier.spec.preprocessing) for image in images]
    # Elsewhere the runtime never uses the graph's resize, because it is known to be wrong there.
    if classifier.spec.input == "image" and classifier.provider == CPU:
        yield "graph", images


def _run_each(classifier: Classifier, images: list[NDArray[np.uint8]], tokens: list[Tokens | None]) -> Outputs:
    outputs = [classifier.run(image[None], item) for image, item in zip(images, tokens, strict=True)]
    return Outputs(*(np.concatenate(column) for column in zip(*outputs, strict=True)))


def _expected(classifier: Classifier, golden: tuple[GoldenVector, ...]) -> Outputs:
    classes = len(classifier.spec.labels)
    lengths = {"probabilities": 0 if classifier.spec.task == REGRESSION else classes, "logits": classes}
    columns = []
    for name in Outputs._fields:
        length = lengths.get(name, classifier.spec.encoder.dim)
        rows = [getattr(vector, name) for vector in golden]
        if any(len(row) != length for row in rows):
            raise SpecError(f"selftest: the golden {name} are damaged: expected {length} numbers each")
        columns.append(np.array(rows, np.float32))
    return Outputs(*columns)


def _drifts(path: str, got: Outputs, expected: Outputs, classifier: Classifier) -> Iterator[Drift]:
    tolerance = _tolerance(path, classifier)
    for name in Outputs._fields:
        want, have = getattr(expected, name), getattr(got, name)
        yield Drift(path, name, _difference(have, want, relative=name != "probabilities"), tolerance)


def _tolerance(path: str, classifier: Classifier) -> float:
    tolerance = TOLERANCES[path] * (1 if classifier.provider == CPU else OTHER_PROVIDER_FACTOR)
    return tolerance if classifier.spec.quantization is None else tolerance * QUANTIZED_FACTOR


def _difference(found: NDArray[np.float32], expected: NDArray[np.float32], *, relative: bool = True) -> float:
    """Largest difference, relative to the largest expected value; infinite where one is no number."""
    unit = max(float(np.abs(expected).max(initial=0)), _SMALLEST) if relative else 1.0
    difference = float(np.abs(found - expected).max(initial=0)) / unit
    return difference if np.isfinite(difference) else float("inf")


def selftest_text(encoder: TextEncoder) -> list[Drift]:
    """Replay the golden texts of an open text tower, each by itself.

    Returns:
        Of ``tokens`` the share that differs, with a tolerance of 0; of ``features`` and ``embedding`` the largest
        difference from PyTorch.

    Raises:
        SpecError: the file has no golden texts, or they are damaged.
        ModelError: the network fails on them.
    """
    golden = encoder.spec.golden
    if not golden:
        raise SpecError("selftest: the file holds no golden texts. Export the model again.")
    if any(len(item.features) != encoder.spec.encoder.dim for item in golden):
        raise SpecError(f"selftest: the golden features are damaged: expected {encoder.spec.encoder.dim} numbers each")
    tokens = [encoder.tokenizer.encode([item.text]) for item in golden]
    features = np.array([item.features for item in golden], np.float32)
    outputs = [encoder.run(each) for each in tokens]
    tolerance = TOLERANCES["text"] if encoder.spec.quantization is None else QUANTIZED_TEXT_TOLERANCE
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), _SMALLEST)
    tolerance *= 1 if encoder.provider == CPU else OTHER_PROVIDER_FACTOR
    return [
        _token_drift(tokens, golden),
        Drift(
            "text", "features", _difference(np.concatenate([each.features for each in outputs]), features), tolerance
        ),
        Drift("text", "embedding", _difference(np.concatenate([each.embedding for each in outputs]), unit), tolerance),
    ]
