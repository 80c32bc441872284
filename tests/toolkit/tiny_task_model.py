"""Files of every task, by hand: the feature is the picture's mean colour, and the head is linear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx_bytes import (
    FLOAT,
    GRAPH,
    INITIALIZER,
    INPUT,
    INT64,
    NODE,
    OUTPUT,
    UINT8,
    field,
    metadata,
    node,
    tensor,
    value,
)
from tiny_fused_model import png

from clip_toolkit import ModelSpec
from clip_toolkit.runtime.graph_check import output_sizes
from clip_toolkit.spec.classifier import (
    NO_HEAD,
    EncoderSpec,
    GoldenVector,
    HeadSpec,
    Preprocessing,
)
from clip_toolkit.spec.tasks import EXPLAIN, MULTI_LABEL, NOVELTY, REGRESSION, RELEVANCE, SINGLE_LABEL, output_names
from clip_toolkit.spec.trust import CoverageSpec, NoveltySpec, RelevanceSpec

LABELS = {
    SINGLE_LABEL: ("normal", "pneumonia"),
    MULTI_LABEL: ("red", "2", "constructor", "bl\N{LATIN SMALL LETTER U WITH DIAERESIS}e"),
    REGRESSION: ("age", "weight"),
}
"""Some of them are names that a JavaScript object has of its own, or sorts first."""

THRESHOLDS = {
    SINGLE_LABEL: {"pneumonia": 0.2},
    MULTI_LABEL: {"red": 0.8, "constructor": 0.125},
    REGRESSION: {},
}

BRIGHT = 240.0

_GOLDEN = ((200, 30, 40), (10, 90, 250), (128, 128, 128), (0, 0, 0))


def weights(task: str) -> NDArray[np.float32]:
    """The head, ``[3, labels]``: sums to 0 over the channels, so that a grey picture has logits of 0."""
    rows = np.random.default_rng(7).normal(0, 0.05, (3, len(LABELS[task])))
    return np.asarray(rows - rows.mean(0), np.float32)


def spec(task: str) -> ModelSpec:
    """The spec of the file."""
    return ModelSpec(
        labels=LABELS[task],
        encoder=EncoderSpec("somebody/tiny", None, "clip", "pooled", 3),
        preprocessing=Preprocessing("squash", 4, 4, "bicubic", (0.0,) * 3, (1.0,) * 3),
        head=HeadSpec((3, len(LABELS[task])), "relu", 0.0),
        task=task,
        thresholds=THRESHOLDS[task],
        golden=tuple(_golden(task, colour) for colour in _GOLDEN),
    )


SEVERAL = {"lungs": SINGLE_LABEL, "signs": MULTI_LABEL, "numbers": REGRESSION}
"""Task of each head of `spec_of_several`, the main one first."""


def spec_of_several() -> ModelSpec:
    """The spec of a file with a head of each task."""
    return ModelSpec.joined(replace(spec(task), name=name) for name, task in SEVERAL.items())


COVERAGE = CoverageSpec(share=0.9, quantile=0.9, images=40)


def model(task: str, *, novelty: bool = False, coverage: bool = False, relevance: bool = False) -> bytes:
    """The bytes of the file, with further outputs if asked for, and sets of labels by `COVERAGE`.

    ``novelty`` is the brightest channel, novel beyond `BRIGHT`; ``relevance`` the mean of the channels, pixel by pixel.
    """
    told = replace(spec(task), coverage=COVERAGE if coverage else None)
    if relevance:
        told = replace(told, relevance=RelevanceSpec(4, 4, tuple((sum(colour) / 3,) * 16 for colour in _GOLDEN)))
    if novelty:
        told = replace(told, novelty=NoveltySpec(BRIGHT, 0.05, 20, tuple(float(max(colour)) for colour in _GOLDEN)))
    return _file(told, (_brightness() if novelty else b"") + (_greys() if relevance else b""))


def _greys() -> bytes:
    """Nodes and what else the graph needs for ``relevance``, with an input that may be left out as exports have it."""
    dropped = field(1, b"keepdims") + field(3, 0) + field(20, 2)
    return b"".join(
        [
            field(NODE, node("Slice", ["pixels", "first", EXPLAIN, "first"], "explained")),
            field(NODE, node("ReduceMean", ["explained", "last"], RELEVANCE, dropped)),
            field(INITIALIZER, tensor("last", INT64, np.array([3]))),
            field(INITIALIZER, tensor("first", INT64, np.array([0]))),
            field(INITIALIZER, tensor(EXPLAIN, INT64, np.array([np.iinfo(np.int64).max]))),
            field(INPUT, value(EXPLAIN, INT64, [1])),
            field(OUTPUT, value(RELEVANCE, FLOAT, [b"explained", 4, 4])),
        ]
    )


def _brightness() -> bytes:
    """Nodes and what else the graph needs for ``novelty``."""
    dropped = field(1, b"keepdims") + field(3, 0) + field(20, 2)
    return b"".join(
        [
            field(NODE, node("ReduceMax", ["colour", "channels"], NOVELTY, dropped)),
            field(INITIALIZER, tensor("channels", INT64, np.array([1]))),
            field(OUTPUT, value(NOVELTY, FLOAT, [b"batch"])),
        ]
    )


def model_of_several() -> bytes:
    """The bytes of the file with a head of each task."""
    return _file(spec_of_several())


def encoder() -> bytes:
    """The bytes of a file without a head: its values are the picture's mean colour."""
    head = HeadSpec((3, 3), "none", 0.0, source=NO_HEAD)
    return _file(replace(spec(REGRESSION), labels=("0", "1", "2"), head=head, golden=()))


def _file(spec: ModelSpec, more: bytes = b"") -> bytes:
    return field(1, 10) + field(8, field(2, 20)) + field(GRAPH, _graph(spec) + more) + metadata(spec.to_json())


def _golden(task: str, colour: tuple[int, int, int]) -> GoldenVector:
    logits = np.float32(colour) @ weights(task)
    probabilities = {
        SINGLE_LABEL: np.exp(logits) / np.exp(logits).sum(),
        MULTI_LABEL: 1 / (1 + np.exp(-logits)),
        REGRESSION: logits[:0],
    }[task]
    embedding = np.float32(colour) / max(float(np.linalg.norm(colour)), 1.0)
    return GoldenVector(png(colour), *(tuple(map(float, row)) for row in (probabilities, logits, embedding)))


def _graph(spec: ModelSpec) -> bytes:
    dropped = field(1, b"keepdims") + field(3, 0) + field(20, 2)
    nodes = [
        node("Cast", ["image"], "pixels", field(1, b"to") + field(3, FLOAT) + field(20, 2)),
        node("ReduceMean", ["pixels", "sides"], "colour", dropped),
        node("LpNormalization", ["colour"], "embedding"),
    ]
    constants = [tensor("sides", INT64, np.array([1, 2]))]
    for head, ending in spec.endings:
        *before, logits, _ = output_names(head.task, ending)
        nodes.append(node("MatMul", ["colour", f"weights{ending}"], logits))
        last = {SINGLE_LABEL: "Softmax", MULTI_LABEL: "Sigmoid"}.get(head.task, "")
        nodes += [node(last, [logits], probabilities) for probabilities in before]
        matrix = np.eye(3, dtype=np.float32) if head.head.source == NO_HEAD else weights(head.task)
        constants.append(tensor(f"weights{ending}", FLOAT, matrix))
    image = value("image", UINT8, [b"batch", b"height", b"width", 3])
    outputs = [value(name, FLOAT, [b"batch", size]) for name, size in output_sizes(spec).items()]
    return b"".join(
        [
            *(field(NODE, item) for item in nodes),
            field(2, b"tasks"),
            *(field(INITIALIZER, item) for item in constants),
            field(INPUT, image),
            *(field(OUTPUT, item) for item in outputs),
        ]
    )
