"""The contract of a text tower's file: `TextTowerSpec`, kept as JSON in the ONNX metadata like a classifier's spec."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from clip_toolkit.spec.classifier import EncoderSpec
from clip_toolkit.spec.json_codec import from_json, to_json
from clip_toolkit.spec.metadata import (
    OLDEST_ONNXRUNTIME,
    SPEC_VERSION,
    TEXT,
    check_onnxruntime,
    parsed,
    require,
    require_kind,
)
from clip_toolkit.spec.tokenizer import TokenizerSpec, check_tokenizer


@dataclass(frozen=True)
class GoldenText:
    """A text and what the PyTorch model made of it; in a quantized file, what that file made of it at the export.

    Attributes:
        text: the text.
        input_ids: its tokens, without padding to the longest of a batch.
        features: float32 ``[dim]``, not normalised.
    """

    text: str
    input_ids: tuple[int, ...]
    features: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True)
class TextParity:
    """Evidence, measured at export on the shipped file and runtime, from text on, against transformers.

    Attributes:
        texts: number of different texts, whose tokens were all equal.
        truncated: how many of them went beyond the context.
        batches: batch sizes that were run.
        feature_scale: largest absolute value in PyTorch's features of them.
        tolerance: bound on ``features / feature_scale`` and on ``embedding``.
        features: largest absolute difference of the features.
        embedding: largest absolute difference of the L2-normalised features.
    """

    texts: int
    truncated: int
    batches: tuple[int, ...]
    feature_scale: float
    tolerance: float
    features: float
    embedding: float


@dataclass(frozen=True)
class TextQuantization:
    """Evidence that a quantized text tower says what the float one did, by the shipped runtime.

    Attributes:
        mode: ``int8``.
        texts: number of texts that were compared.
        mean_cosine: mean cosine similarity of its embeddings and the float file's.
        least_cosine: the least of them.
        min_cosine: bound on it.
        size_ratio: size of this file relative to the float one.
        speed_ratio: speed relative to the float one, for one short text on the machine of the export.
    """

    mode: str
    texts: int
    mean_cosine: float
    least_cosine: float
    min_cosine: float
    size_ratio: float
    speed_ratio: float


@dataclass(frozen=True)
class TextTowerSpec:
    """Everything an app must know about a text tower's file.

    Attributes:
        encoder: the encoder whose images and texts share a space; its feature is ``projected``.
        tokenizer: from text to ``input_ids``.
        logit_scale: what a cosine similarity of image and text is multiplied by to become a logit.
        logit_bias: what is then added (SigLIP), or None.
        ops: ``ort`` (standard ONNX and ``com.microsoft`` operators) or ``standard``.
        parity: evidence of the export, of the float file if this one is quantized.
        quantization: evidence of the quantization, or None in a float32 file.
        onnxruntime: oldest version of ONNX Runtime, ``major.minor``, that runs the file and gives its answers.
        golden: texts with their PyTorch outputs, for the selftest.
        tools: versions of the packages that made the file.
        kind: ``text``, which tells this file from a classifier.
        version: version of this format.
    """

    encoder: EncoderSpec
    tokenizer: TokenizerSpec
    logit_scale: float
    logit_bias: float | None = None
    ops: str = "ort"
    parity: TextParity | None = None
    quantization: TextQuantization | None = None
    onnxruntime: str = OLDEST_ONNXRUNTIME
    golden: tuple[GoldenText, ...] = field(default=(), repr=False)
    tools: dict[str, str] = field(default_factory=dict, repr=False)
    kind: str = TEXT
    version: str = SPEC_VERSION

    def to_json(self) -> str:
        """Return the text to store under `clip_toolkit.spec.metadata.SPEC_KEY`."""
        return json.dumps(to_json(self), ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> TextTowerSpec:
        """Read the text stored under `clip_toolkit.spec.metadata.SPEC_KEY`.

        Raises:
            SpecError: as in `clip_toolkit.spec.classifier.ModelSpec.from_json`, or it is a classifier's.
        """
        data = parsed(text)
        require_kind(data, TEXT)
        spec = from_json(cls, data, "spec")
        _check(spec)
        return spec


def _check(spec: TextTowerSpec) -> None:
    check_tokenizer(spec.tokenizer, "tokenizer")
    require(spec.encoder.dim >= 1, "encoder.dim", "at least 1", spec.encoder.dim)
    require(spec.encoder.feature == "projected", "encoder.feature", "projected", spec.encoder.feature)
    require(spec.ops in ("ort", "standard"), "ops", "ort or standard", spec.ops)
    check_onnxruntime(spec.onnxruntime)
    require(math.isfinite(spec.logit_scale) and spec.logit_scale > 0, "logit_scale", "above 0", spec.logit_scale)
