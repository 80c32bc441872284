"""A text tower's file by hand: each token has a row of a table, and the feature of a text is their sum."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx_bytes import FLOAT, GRAPH, INITIALIZER, INT64, NODE, field, metadata, node, tensor, value

from clip_toolkit import TextTowerSpec
from clip_toolkit.spec.classifier import EncoderSpec
from clip_toolkit.spec.text_tower import GoldenText
from clip_toolkit.spec.tokenizer import TokenizerSpec

CONTEXT = 6
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "circle")
TABLE = np.random.default_rng(3).normal(size=(len(WORDS), 4)).astype(np.float32)


def tokenizer_json() -> str:
    """Words between blanks, in lower case, with a mark before and behind."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    marks = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    processor = {
        "type": "TemplateProcessing",
        "single": [marks[0], {"Sequence": {"id": "A", "type_id": 0}}, marks[1]],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {mark: {"id": mark, "ids": [vocabulary[mark]], "tokens": [mark]} for mark in WORDS[2:4]},
    }
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [],
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": processor,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        }
    )


def ids(text: str) -> list[int]:
    """What the tokenizer is to give for a text that fits."""
    words = [WORDS.index(word) if word in WORDS else 1 for word in text.lower().split()]
    return [2, *words, 3]


def features(text: str) -> NDArray[np.float32]:
    """What the network is to give for a text that fits."""
    return np.asarray(TABLE[ids(text)].sum(0), np.float32)


def spec(**changes: object) -> TextTowerSpec:
    """The spec of the file."""
    golden = tuple(GoldenText(text, tuple(ids(text)), tuple(map(float, features(text)))) for text in ("", "red circle"))
    whole = TextTowerSpec(
        encoder=EncoderSpec("somebody/tiny", None, "clip", "projected", TABLE.shape[1]),
        tokenizer=TokenizerSpec(tokenizer_json(), CONTEXT, pad_id=0),
        logit_scale=100.0,
        golden=golden,
        tools={"clip-toolkit": "0.1.0"},
    )
    return replace(whole, **changes)


def model(text: str | None = None) -> bytes:
    """The bytes of the file, with another text in the place of its spec where one is given."""
    return field(1, 10) + field(8, field(2, 20)) + field(GRAPH, _graph()) + metadata(text or spec().to_json())


def _graph() -> bytes:
    nodes = [
        node("Gather", ["table", "input_ids"], "rows"),
        node("Cast", ["attention_mask"], "seen", field(1, b"to") + field(3, FLOAT) + field(20, 2)),
        node("Unsqueeze", ["seen", "last"], "column"),
        node("Mul", ["rows", "column"], "read"),
        node("ReduceSum", ["read", "tokens"], "features", field(1, b"keepdims") + field(3, 0) + field(20, 2)),
        node("LpNormalization", ["features"], "embedding"),
    ]
    weights = [
        tensor("table", FLOAT, TABLE),
        tensor("last", INT64, np.array([-1])),
        tensor("tokens", INT64, np.array([1])),
    ]
    inputs = [value(name, INT64, [b"batch", b"length"]) for name in ("input_ids", "attention_mask")]
    outputs = [value(name, FLOAT, [b"batch", TABLE.shape[1]]) for name in ("embedding", "features")]
    return b"".join(
        [
            *(field(NODE, item) for item in nodes),
            field(2, b"text"),
            *(field(INITIALIZER, weight) for weight in weights),
            *(field(11, item) for item in inputs),
            *(field(12, item) for item in outputs),
        ]
    )
