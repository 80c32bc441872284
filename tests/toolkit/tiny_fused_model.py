"""A file that reads a text with each image, by hand: the image's feature is its mean colour, the text's a sum."""

from __future__ import annotations

import io
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
from PIL import Image
from tiny_text_model import CONTEXT, TABLE, features, ids, tokenizer_json

from clip_toolkit import ModelSpec
from clip_toolkit.spec.classifier import EncoderSpec, GoldenVector, HeadSpec, Preprocessing, TextSpec
from clip_toolkit.spec.tokenizer import TokenizerSpec

LABELS = ("no", "yes")
WEIGHTS = np.random.default_rng(4).normal(0, 0.02, (3 + TABLE.shape[1], len(LABELS))).astype(np.float32)
WEIGHTS[3:] *= 50  # a row of the table is a few ones, a colour some hundreds

_GOLDEN = (((200, 30, 40), ""), ((10, 90, 250), "red circle"))


def png(colour: tuple[int, int, int]) -> bytes:
    """A picture of one colour, whose mean no resize changes."""
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), colour).save(buffer, "PNG")
    return buffer.getvalue()


def logits(colour: tuple[int, int, int], text: str) -> NDArray[np.float32]:
    """What the network is to give for a picture of one colour and a text that fits."""
    return np.asarray(np.concatenate([np.float32(colour), features(text)]) @ WEIGHTS, np.float32)


def spec(**changes: object) -> ModelSpec:
    """The spec of the file."""
    whole = ModelSpec(
        labels=LABELS,
        encoder=EncoderSpec("somebody/tiny", None, "clip", "pooled", 3),
        preprocessing=Preprocessing("squash", 4, 4, "bicubic", (0.0,) * 3, (1.0,) * 3),
        head=HeadSpec((len(WEIGHTS), len(LABELS)), "relu", 0.0),
        text=TextSpec(TABLE.shape[1], TokenizerSpec(tokenizer_json(), CONTEXT, pad_id=0)),
        golden=tuple(_golden(colour, text) for colour, text in _GOLDEN),
        tools={"clip-toolkit": "0.1.0"},
    )
    return replace(whole, **changes)


def model(text: str | None = None) -> bytes:
    """The bytes of the file, with another text in the place of its spec where one is given."""
    return field(1, 10) + field(8, field(2, 20)) + field(GRAPH, _graph()) + metadata(text or spec().to_json())


def _golden(colour: tuple[int, int, int], text: str) -> GoldenVector:
    found = logits(colour, text)
    odds = np.exp(found - found.max())
    embedding = np.float32(colour) / np.linalg.norm(np.float32(colour))
    rows = (odds / odds.sum(), found, embedding)
    return GoldenVector(png(colour), *(tuple(map(float, row)) for row in rows), text, tuple(ids(text)))


def _graph() -> bytes:
    dropped = field(1, b"keepdims") + field(3, 0) + field(20, 2)
    to_float = field(1, b"to") + field(3, FLOAT) + field(20, 2)
    nodes = [
        node("Cast", ["image"], "pixels", to_float),
        node("ReduceMean", ["pixels", "sides"], "colour", dropped),
        node("LpNormalization", ["colour"], "embedding"),
        node("Gather", ["table", "input_ids"], "rows"),
        node("Cast", ["attention_mask"], "seen", to_float),
        node("Unsqueeze", ["seen", "last"], "column"),
        node("Mul", ["rows", "column"], "read"),
        node("ReduceSum", ["read", "tokens"], "sums", dropped),
        node("Concat", ["colour", "sums"], "both", field(1, b"axis") + field(3, 1) + field(20, 2)),
        node("MatMul", ["both", "weights"], "logits"),
        node("Softmax", ["logits"], "probabilities"),
    ]
    constants = [
        tensor("sides", INT64, np.array([1, 2])),
        tensor("table", FLOAT, TABLE),
        tensor("last", INT64, np.array([-1])),
        tensor("tokens", INT64, np.array([1])),
        tensor("weights", FLOAT, WEIGHTS),
    ]
    texts = [value(name, INT64, [b"batch", b"length"]) for name in ("input_ids", "attention_mask")]
    sizes = {"probabilities": len(LABELS), "logits": len(LABELS), "embedding": 3}
    return b"".join(
        [
            *(field(NODE, item) for item in nodes),
            field(2, b"fused"),
            *(field(INITIALIZER, item) for item in constants),
            *(field(INPUT, item) for item in (value("image", UINT8, [b"batch", b"height", b"width", 3]), *texts)),
            *(field(OUTPUT, value(name, FLOAT, [b"batch", size])) for name, size in sizes.items()),
        ]
    )
