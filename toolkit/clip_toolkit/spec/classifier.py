"""The contract between an exported file and every app: `ModelSpec`, kept as JSON in the ONNX metadata.

docs/model-file.md describes each field for clients in other languages.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from clip_toolkit.errors import SpecError
from clip_toolkit.spec.contradictions import check
from clip_toolkit.spec.json_codec import LATER, from_json, to_json
from clip_toolkit.spec.licenses import License
from clip_toolkit.spec.metadata import (
    CLASSIFIER,
    OLDEST_ONNXRUNTIME,
    SEVERAL_HEADS,
    SPEC_VERSION,
    parsed,
    require_kind,
)
from clip_toolkit.spec.receipts import FastDecodeReceipt, NotebookReceipt, ParityReceipt, QuantizationReceipt
from clip_toolkit.spec.tasks import SINGLE_LABEL
from clip_toolkit.spec.tokenizer import TokenizerSpec
from clip_toolkit.spec.trust import CoverageSpec, NoveltySpec, ReferenceSpec, RelevanceSpec


@dataclass(frozen=True)
class Preprocessing:
    """How an RGB image becomes the encoder's input.

    Attributes:
        mode: ``crop`` (shortest edge to ``resize``, then a centre crop of ``size``), ``squash`` (both sides to
            ``size``), ``pad`` (longest edge to ``size``, then borders of ``fill`` around it) or ``naflex`` (the largest
            grid of at most ``max_patches`` patches in the image's own shape).
        resize: pixels of the shortest edge after the resize; equal to ``size`` in the other modes.
        size: pixels of either side of the encoder's input; in mode ``naflex``, of the largest square one.
        resample: ``bicubic`` (Keys, a = -0.5) or ``bilinear``, both antialiased as Pillow's are.
        mean: per RGB channel, subtracted after scaling.
        std: per RGB channel, divided by.
        scale: factor from 0..255 to the range that ``mean`` and ``std`` speak of.
        passes: order of the two passes of the resize: ``horizontal_first``.
        long_edge: rule for the longer side: ``truncate``.
        crop_offset: rule for half of an odd difference: ``floor`` or ``half_even``, as of `preprocess.crop_offset`.
        exif: ``apply``, the orientation is applied before anything else.
        patch: pixels of either side of a patch; 0 but in mode ``naflex``.
        max_patches: most patches of an image; 0 but in mode ``naflex``.
        fill: of each channel of the borders, 0 to 255.
    """

    mode: str
    resize: int
    size: int
    resample: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255
    passes: str = "horizontal_first"
    long_edge: str = "truncate"
    crop_offset: str = "floor"
    exif: str = "apply"
    patch: int = 0
    max_patches: int = 0
    fill: int = 0


@dataclass(frozen=True)
class EncoderSpec:
    """Where the encoder came from and what the head reads of it.

    Attributes:
        id: hub id or name of the local folder.
        revision: commit on the hub (40 digits), or SHA-256 of the content of a local folder, or with what was learnt
            for one head (64); None if unknown.
        family: of the encoder, such as ``clip`` or ``siglip``.
        feature: ``pooled`` (the tower's own pooled output), ``projected`` (into the space shared with text), or of an
            encoder that is cut behind a block ``class@6`` (its class token), ``mean@6`` (the mean of its patches'
            tokens) or ``class+mean@6`` (both), each layer-normalised without weights; with ``attention`` in place of
            ``mean`` what a query reads of the patches that was learnt with the head.
        dim: length of the feature and so of the ``embedding`` output.
        base: of a LoRA adapter, id and revision of the checkpoint that it is merged into; None for a whole checkpoint.
        licenses: that the model card states, and the card of ``base``; none where they state none. An encoder is the
            same under another licence.
    """

    id: str
    revision: str | None
    family: str
    feature: str
    dim: int
    base: str | None = None
    licenses: tuple[License, ...] = field(default=(), compare=False, metadata=LATER)


@dataclass(frozen=True)
class TextSpec:
    """The text that a model reads together with each image, by the text tower of the same checkpoint.

    Attributes:
        dim: length of the text's feature (projected, not normalised), which the head reads behind that of the image.
        tokenizer: from text to the inputs ``input_ids`` and ``attention_mask``.
    """

    dim: int
    tokenizer: TokenizerSpec


NO_HEAD = "none"
"""`HeadSpec.source` of files that hold an encoder alone: their values are its feature, as it is."""


@dataclass(frozen=True)
class HeadSpec:
    """Architecture of the MLP head.

    Attributes:
        layers: sizes from input to output, ``(768, 256, 2)`` for the default head on ViT-B.
        activation: between the layers, such as ``relu``.
        dropout: probability during training; the exported graph has none.
        feature_norm: the first layer reads the feature divided by its L2 norm, as a zero-shot classifier does.
        source: what the head was read from: ``clip-train``, whose files say all of this themselves, or a notebook's
            ``state_dict``, ``class``, ``program`` or ``coefficients``, which leave some of it to assumption; or
            `NO_HEAD`.
        form: its layers in order, for people, where sizes and activation do not tell them all.
    """

    layers: tuple[int, ...]
    activation: str
    dropout: float
    feature_norm: bool = False
    source: str = "clip-train"
    form: str = ""

    @property
    def is_assumed(self) -> bool:
        """Whether it was read from a file that leaves some of it open."""
        return self.source not in ("clip-train", NO_HEAD)

    def reading(self, feature: str) -> str:
        """Return the head in words, such as ``128 -> relu -> 2 on the pooled, un-normalised feature``."""
        between = f" -> {self.activation} -> "
        sizes = between.join(map(str, self.layers[1:]))
        layers = self.form or (f"linear to {sizes}" if len(self.layers) == 2 else sizes)
        plain = "layer-normalised" if "@" in feature else "un-normalised"
        return f"{layers} on the {feature}, {'L2-normalised' if self.feature_norm else plain} feature"


@dataclass(frozen=True)
class GoldenVector:
    """One picture and what the PyTorch model made of it; in a quantized file, what that file made of it at the export.

    Attributes:
        png: the picture, lossless.
        probabilities: float32 ``[classes]``; empty for regression.
        logits: float32 ``[classes]``; the values of a regression.
        embedding: float32 ``[dim]``.
        text: the text that goes with it, in models that read one.
        input_ids: its tokens by PyTorch's tokenizer, without padding to the longest of a batch.
    """

    png: bytes = field(repr=False)
    probabilities: tuple[float, ...] = field(repr=False)
    logits: tuple[float, ...] = field(repr=False)
    embedding: tuple[float, ...] = field(repr=False)
    text: str | None = None
    input_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class TaskAnswer:
    """What PyTorch made of one golden picture by a further head; the fields are those of `GoldenVector`."""

    probabilities: tuple[float, ...] = field(repr=False)
    logits: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True)
class TaskSpec:
    """A further head on the same encoder. What is not listed here is as in `ModelSpec`, of this head alone.

    Attributes:
        name: an identifier, which ends the names of its outputs.
        golden: its answers to the golden pictures, in their order.
    """

    name: str
    labels: tuple[str, ...]
    head: HeadSpec
    task: str = SINGLE_LABEL
    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)
    parity: ParityReceipt | None = None
    notebook: NotebookReceipt | None = None
    quantization: QuantizationReceipt | None = None
    golden: tuple[TaskAnswer, ...] = ()


@dataclass(frozen=True, repr=False)
class ModelSpec:
    """Everything an app must know about a model file.

    Attributes:
        labels: class names, in the order of ``probabilities`` and ``logits``; of a regression the names of its values.
        encoder: the frozen encoder.
        preprocessing: from RGB image to encoder input.
        head: the MLP head.
        input: ``image`` (uint8 ``[batch, height, width, 3]``) or ``pixels`` (float32 ``[batch, 3, size, size]``).
        ops: ``ort`` (standard ONNX and ``com.microsoft`` operators) or ``standard``.
        text: what is read together with each image, or None where images are all.
        task: ``single-label`` (softmax), ``multi-label`` (a sigmoid for each label) or ``regression`` (raw values).
        temperature: the logits are divided by it before the softmax or sigmoid.
        thresholds: probability from which a label is said. Single-label: none, so that the most probable label is,
            or, of two labels, that of one: it is said from there on and the other one below. Multi-label: of each
            label, `clip_toolkit.spec.decisions.DEFAULT_THRESHOLD` where it has none.
        training: summary written by the trainer, for people.
        parity: evidence of the export, of the float file if this one is quantized.
        notebook: evidence that the file answers as the notebook did, or None where its answers were not given.
        quantization: evidence of the quantization, or None in a float32 file.
        novelty: about the output ``novelty``, or None in a file without it.
        coverage: what sets of labels promise, or None in a file that was not calibrated for them.
        reference: statistics to tell drift by, or None.
        relevance: about the output ``relevance``, likewise.
        fast_decode: evidence that JPEGs may be scaled down while they are decoded, or None where that was not judged.
        onnxruntime: oldest version of ONNX Runtime, ``major.minor``, that runs the file and gives its answers.
        golden: pictures with their PyTorch outputs, for the selftest.
        tools: versions of the packages that made the file.
        version: version of this format.
        name: of the head, in a file of several; else empty.
        tasks: further heads, which answer beside this one.
    """

    labels: tuple[str, ...]
    encoder: EncoderSpec
    preprocessing: Preprocessing
    head: HeadSpec
    input: str = "image"
    ops: str = "ort"
    text: TextSpec | None = None
    task: str = SINGLE_LABEL
    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    parity: ParityReceipt | None = None
    notebook: NotebookReceipt | None = None
    quantization: QuantizationReceipt | None = None
    novelty: NoveltySpec | None = field(default=None, metadata=LATER)
    coverage: CoverageSpec | None = field(default=None, metadata=LATER)
    reference: ReferenceSpec | None = field(default=None, metadata=LATER)
    relevance: RelevanceSpec | None = field(default=None, metadata=LATER)
    fast_decode: FastDecodeReceipt | None = field(default=None, metadata=LATER)
    onnxruntime: str = OLDEST_ONNXRUNTIME
    golden: tuple[GoldenVector, ...] = ()
    tools: dict[str, str] = field(default_factory=dict)
    version: str = SPEC_VERSION
    name: str = field(default="", metadata=LATER)
    tasks: tuple[TaskSpec, ...] = field(default=(), metadata=LATER)

    def __repr__(self) -> str:
        """Show what the model does; `clip_toolkit.spec.description.describe` tells everything."""
        labels = reprlib.repr(self.labels)
        return f"ModelSpec(task={self.task!r}, labels={labels}, encoder={self.encoder.id!r}, input={self.input!r})"

    @property
    def heads(self) -> dict[str, ModelSpec]:
        """Each head by its name, the main one first: as the spec of a file that had it alone."""
        return {self.name: replace(self, tasks=())} | {task.name: self._alone(task) for task in self.tasks}

    @property
    def endings(self) -> list[tuple[ModelSpec | TaskSpec, str]]:
        """Each head, and what the names of its outputs end in, the main one first."""
        return [(self, ""), *((task, task.name) for task in self.tasks)]

    @classmethod
    def joined(cls, heads: Iterable[ModelSpec]) -> ModelSpec:
        """Return the spec of a file with the heads of several specs, the main one first; undoes `heads`."""
        main, *others = heads
        return replace(main, version=SEVERAL_HEADS, tasks=tuple(map(_task, others))) if others else main

    def _alone(self, task: TaskSpec) -> ModelSpec:
        own = {name: value for name, value in vars(task).items() if name != "golden"}
        pairs = zip(self.golden, task.golden, strict=True)
        return replace(self, **own, tasks=(), golden=tuple(replace(vector, **vars(answer)) for vector, answer in pairs))

    def to_json(self) -> str:
        """Return the text to store under `clip_toolkit.spec.metadata.SPEC_KEY`."""
        return json.dumps(to_json(self), ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read the text stored under `clip_toolkit.spec.metadata.SPEC_KEY`.

        Raises:
            SpecError: not JSON, too large, of a newer major version or of another kind of file, a field missing or of
                another type, or values that contradict each other.
        """
        data = parsed(text)
        require_kind(data, CLASSIFIER)
        spec = from_json(cls, data, "spec")
        check(spec)
        for alone in spec.heads.values() if spec.tasks else ():
            check(alone)
        return spec


def check_one_head(spec: ModelSpec, program: str, instead: str) -> None:
    """Refuse a file with several heads, of which a program would show the main one alone.

    Raises:
        SpecError: it has several; the message names them.
    """
    if spec.tasks:
        heads = ", ".join(spec.heads)
        raise SpecError(f"the file holds the heads {heads}, and {program} answers for one. Use {instead}.")


def _task(spec: ModelSpec) -> TaskSpec:
    own = {item.name: getattr(spec, item.name) for item in fields(TaskSpec)}
    return TaskSpec(**own | {"golden": tuple(TaskAnswer(item.probabilities, item.logits) for item in spec.golden)})
