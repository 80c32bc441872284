"""From a proved float file to a quantized one that decides the same, or to a refusal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from clip_export.graph.large import (
    check_quantized,
    fits,
    is_large,
    load_alike,
    load_own,
    own_size,
    size_of,
    without_integers,
)
from clip_export.graph.model_file import save_model
from clip_export.heads.files import Head
from clip_export.heads.mlp import VLMtoMLP
from clip_export.quantization.equalisation import equalised
from clip_export.quantization.evidence.examples import drawn_files, drawn_texts, feeds_of, tuning_feeds
from clip_export.quantization.evidence.gate import Decisions, compare_heads, predictions, speed_ratio
from clip_export.quantization.evidence.images import Evidence, LabelledImage
from clip_export.quantization.layers.linears import find_linears, with_constants, with_plain_linears
from clip_export.quantization.modes.fp16 import quantize_fp16
from clip_export.quantization.modes.int4 import BLOCKS, INT4_ALPHA, quantize_int4
from clip_export.quantization.modes.int8 import Int8Scheme, quantize_int8
from clip_export.quantization.ranges import observe
from clip_export.quantization.refit import head_features, refit_head
from clip_export.quantization.search import Choice, Int8Search, Report
from clip_export.quantization.targets import Target
from clip_toolkit import load
from clip_toolkit.errors import QuantizationError
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.receipts import QuantizationReceipt, agreement_text


@dataclass(frozen=True)
class QuantizationOptions:
    """How a file is quantized.

    Attributes:
        mode: one of `clip_export.quantization.request.MODES`.
        target: processor, for int8.
        evidence: the user's images; without them int8 has dynamic ranges, and drawn pictures judge.
        refit: images to train the head on again, behind the quantized encoder.
        min_agreement: bound on `clip_export.quantization.evidence.gate.Decisions.agreement`, 0 to 1.
        minutes: after which the search for a better way ends.
        report: told of what is going on, line by line.
    """

    mode: str
    target: Target
    evidence: Evidence | None = None
    refit: tuple[LabelledImage, ...] = ()
    min_agreement: float = 0.99
    minutes: float = 10.0
    report: Report = lambda _: None


@dataclass(frozen=True)
class Quantized:
    """What came of it.

    Attributes:
        model: the network, without metadata.
        head: the head in it: the original one, or the one that was trained again.
        decisions: of each head by its name, what changed, with the names of the images.
        receipts: the same for the model file.
        embeddings: ``[images, dim]``, of the float file and of this network.
    """

    model: onnx.ModelProto
    head: Head
    decisions: dict[str, Decisions]
    receipts: dict[str, QuantizationReceipt]
    embeddings: tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class _Candidate:
    text: str
    model: onnx.ModelProto
    float_layers: tuple[str, ...] = ()
    tried: dict[str, float] = field(default_factory=dict)


class Attempt(NamedTuple):
    """What a way to quantize did to the head that fares worst."""

    text: str
    head: str
    task: str
    decisions: Decisions

    @property
    def agreement(self) -> str:
        """For people; names the head where there are several."""
        found = agreement_text(self.task, self.decisions.agreement, self.decisions.images)
        return f"{self.head} {found}" if self.head else found


def quantize(path: Path, head: Head, options: QuantizationOptions, scratch: Path) -> Quantized:
    """Quantize a float file.

    Args:
        path: the proved float32 file.
        head: the main head in it, by which ways are compared; all heads must hold the agreement.
        options: how.
        scratch: a file to try candidates in.

    Raises:
        QuantizationError: no way holds the agreement, there is nothing to quantize, fp16 overflows, or a refit was
            asked for without its images.
    """
    judge = _Judge(path, scratch, options)
    refused: list[Attempt] = []
    for candidate in _candidates(path, judge.spec, options):
        if refused and is_large(candidate.model):
            break  # more exact than one that fits: what that one did says more than this one's size
        check_quantized(candidate.model, options.mode, own_size(path))
        fitted, candidate_head = candidate, head
        if options.refit:
            candidate_head, fitted = _refitted(_network(path), candidate, head, judge.spec, options.refit)
        decisions = judge.decisions(fitted.model)
        worst = min(decisions, key=lambda name: decisions[name].agreement)
        attempt = Attempt(fitted.text, worst, judge.spec.heads[worst].task, decisions[worst])
        options.report(f"{fitted.text}: {attempt.agreement}")
        if decisions[worst].agreement >= options.min_agreement:
            receipts = judge.receipts(fitted, decisions)
            return Quantized(fitted.model, candidate_head, decisions, receipts, judge.embeddings())
        refused.append(attempt)
    can_refit = isinstance(head, VLMtoMLP) and not judge.spec.tasks and not options.refit
    raise refusal(options, refused, can_refit=can_refit, can_int8=fits(own_size(path), "int8"))


def _network(path: Path) -> onnx.ModelProto:
    """Load the float network anew wherever it is needed: a large one that was kept would take most of the memory."""
    return with_plain_linears(onnx.load(path))


def _candidates(path: Path, spec: ModelSpec, options: QuantizationOptions) -> Iterator[_Candidate]:
    """Ways to quantize, the preferred one first, each made when the one before has failed."""
    if options.mode == "fp16":
        yield _Candidate("half precision", quantize_fp16(_network(path), tuning_feeds(spec, options.evidence)))
        return
    model = _network(path)
    if not find_linears(model):
        raise QuantizationError(
            f"{options.mode}: the encoder has no linear layers, and convolutions stay in float. "
            f"{without_integers(size_of(model))}."
        )
    if options.mode == "int4":
        # Behind an outlier channel weights are small, and would all be rounded to nothing beside others of their block.
        inputs = tuning_feeds(spec, options.evidence)
        seen = observe(model, inputs, [layer.source for layer in find_linears(model).values()])
        even, _ = equalised(model, seen, INT4_ALPHA)
        for block in BLOCKS:
            text = f"blocks of {block} weights, equalised ({INT4_ALPHA:g})"
            yield _Candidate(text, quantize_int4(even, block, spec.ops))
    elif options.evidence is None:
        scheme = Int8Scheme(options.target, spec.ops, ranges=None)
        yield _Candidate(str(Choice(None)), quantize_int8(model, scheme))
    else:
        inputs = tuning_feeds(spec, options.evidence)
        deadline = time.monotonic() + options.minutes * 60
        search = Int8Search(model, inputs, options.target, spec.ops, spec.task, deadline, options.report)
        best = search.best()
        yield _Candidate(str(best), search.build(best), tried=search.tried)
        for choice in search.more_exact(best):
            yield _Candidate(str(choice), search.build(choice), choice.float_layers, search.tried)


def refusal(
    options: QuantizationOptions, refused: Sequence[Attempt], *, can_refit: bool, can_int8: bool = True
) -> QuantizationError:
    """Name the best attempt, the first of those that are equally good, and what may help."""
    best = max(refused, key=lambda attempt: attempt.decisions.agreement)
    of_several = f"the best of {len(refused)} attempts ({best.text}) " if len(refused) > 1 else ""
    flips = "; ".join(
        f"{name}: {flip.before} {flip.before_probability:.1%} -> {flip.after} {flip.after_probability:.1%}"
        for name, flip in best.decisions.flips[:5]
    )
    calibrate = "give more typical images with --calibration"
    refit = ["let the head adapt with --refit"] if can_refit else []
    remedies = {
        "int8": [calibrate, *refit, "use --quantize int4"],
        "int4": ["use --quantize int8" if can_int8 else calibrate, *refit],
        "fp16": ["use --quantize int8"],
    }
    return QuantizationError(
        f"{options.mode}: {of_several}{best.agreement}, less than "
        f"{options.min_agreement:.2%}{f' ({flips})' if flips else ''}. No file was written. "
        f"You can {', or '.join(remedies[options.mode])}; if such changes do not matter to you, lower --min-agreement."
    )


class _Judge:
    """Compares candidates with the float file through the shipped runtime."""

    def __init__(self, path: Path, scratch: Path, options: QuantizationOptions) -> None:
        self.path, self.scratch, self.options = path, scratch, options
        classifier = load_own(path)
        self.spec, self.tokenizer = classifier.spec, classifier.tokenizer
        self.images: list[NDArray[np.uint8] | bytes]
        self.texts: list[str] | None = None
        self.targets: list[int | None]
        if options.evidence is None:
            self.images = list(drawn_files(self.spec))
            self.texts = drawn_texts(self.spec, len(self.images))
            self.names, self.targets = (
                [f"drawn picture {i}" for i in range(len(self.images))],
                [None] * len(self.images),
            )
        else:
            judged = options.evidence.evaluation
            self.images = [image.pixels for image in judged]
            if self.spec.text is not None:
                self.texts = [image.text or "" for image in judged]
            self.names, self.targets = [image.name for image in judged], [image.target for image in judged]
        self.before = predictions(classifier, self.images, self.texts)
        self.after = self.before
        self.attempts = 0

    def decisions(self, model: onnx.ModelProto) -> dict[str, Decisions]:
        """Compare each head's answers."""
        self.attempts += 1
        save_model(model, self.spec, self.scratch)
        self.after = predictions(load(self.scratch, device="cpu"), self.images, self.texts)
        return compare_heads(self.spec, self.names, self.before, self.after, self.targets)

    def receipts(self, candidate: _Candidate, decisions: dict[str, Decisions]) -> dict[str, QuantizationReceipt]:
        """Of the candidate that `decisions` was asked about last."""
        speed = self._speed_ratio()
        return {name: self._receipt(candidate, found, speed) for name, found in decisions.items()}

    def _receipt(self, candidate: _Candidate, decisions: Decisions, speed: float | None) -> QuantizationReceipt:
        options, evidence = self.options, self.options.evidence
        return QuantizationReceipt(
            mode=options.mode,
            target=options.target.name if options.mode == "int8" else "any",
            choice=candidate.text,
            tried=candidate.tried,
            float_layers=candidate.float_layers,
            calibration_images=len(evidence.calibration) if evidence else 0,
            evaluation_images=decisions.images,
            source=evidence.source if evidence else "drawn pictures: no images were given",
            min_agreement=options.min_agreement,
            **decisions.told(),
            size_ratio=own_size(self.scratch) / own_size(self.path),
            speed_ratio=speed,
            attempts=self.attempts,
            refit_images=len(options.refit),
        )

    def embeddings(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of the float file, and of the candidate that `decisions` was asked about last."""
        before, after = (np.stack([item.embedding for item in found]) for found in (self.before, self.after))
        return before, after

    def _speed_ratio(self) -> float | None:
        """How many times faster the candidate is, for one image."""
        if self.options.mode == "int8" and not self.options.target.is_here:
            return None
        size = self.spec.preprocessing.size
        image = np.zeros((1, size, size, 3), np.uint8)
        tokens = None if self.tokenizer is None else self.tokenizer.encode((self.texts or [""])[:1])
        return speed_ratio(*(partial(each.run, image, tokens) for each in load_alike(self.path, self.scratch)))


def _refitted(
    model: onnx.ModelProto,
    candidate: _Candidate,
    head: Head,
    spec: ModelSpec,
    images: Sequence[LabelledImage],
) -> tuple[Head, _Candidate]:
    assert isinstance(head, VLMtoMLP)  # an export refuses to refit others
    inputs = feeds_of(images, spec)
    trained = refit_head(head, head_features(model, inputs), head_features(candidate.model, inputs), spec.task)
    if trained is head:
        return head, replace(
            candidate, text=f"{candidate.text}, head kept: refitting on {len(images)} images did not help"
        )
    weights = {f"head.{name}": value.numpy() for name, value in trained.state_dict().items()}
    return trained, replace(
        candidate,
        text=f"{candidate.text}, head refitted on {len(images)} images",
        model=with_constants(candidate.model, weights),
    )
