"""What a model file says of itself must not contradict itself: a host would answer something else than it means."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from clip_toolkit.spec.metadata import SEVERAL_HEADS, check_onnxruntime, require
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL, TASKS
from clip_toolkit.spec.tokenizer import check_tokenizer

if TYPE_CHECKING:
    from clip_toolkit.spec.classifier import ModelSpec, Preprocessing
    from clip_toolkit.spec.receipts import FastDecodeReceipt
    from clip_toolkit.spec.trust import ReferenceSpec

HEAD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
"""What a head may be called in a file of several: an identifier, as ONNX asks of the names of outputs."""

_MAX_SIDE = 4096  # pixels; a larger one is damage or malice, and would take the host's memory

_CHOICES = {
    "mode": ("crop", "squash", "pad", "naflex"),
    "resample": ("bicubic", "bilinear"),
    "passes": ("horizontal_first",),
    "long_edge": ("truncate",),
    "crop_offset": ("floor", "half_even"),
    "exif": ("apply",),
}


def check(spec: ModelSpec) -> None:
    """Compare the values of a spec with one another and with what this version knows.

    Raises:
        SpecError: one is out of its range, or contradicts another; the message names the field.
    """
    rule = spec.preprocessing
    for name, choices in _CHOICES.items():
        require(getattr(rule, name) in choices, f"preprocessing.{name}", " or ".join(choices), getattr(rule, name))
    require(rule.resize <= _MAX_SIDE, "preprocessing.resize", f"at most {_MAX_SIDE}", rule.resize)
    require(1 <= rule.size <= rule.resize, "preprocessing.size", f"1 to resize ({rule.resize})", rule.size)
    require(rule.mode == "crop" or rule.size == rule.resize, "preprocessing.size", f"{rule.resize}", rule.size)
    _check_patches(rule)
    require(0 <= rule.fill <= 255, "preprocessing.fill", "0 to 255", rule.fill)
    finite = all(map(math.isfinite, (*rule.mean, *rule.std, rule.scale)))
    require(len(rule.mean) == 3 and finite, "preprocessing.mean", "3 finite values", rule.mean)
    require(len(rule.std) == 3 and all(rule.std), "preprocessing.std", "3 values other than 0", rule.std)
    require(len(spec.labels) >= 1, "labels", "at least 1", spec.labels)
    require(len(set(spec.labels)) == len(spec.labels), "labels", "labels that differ", spec.labels)
    require(
        spec.head.layers[-1:] == (len(spec.labels),), "head.layers", f"{len(spec.labels)} outputs", spec.head.layers
    )
    width = spec.encoder.dim + (spec.text.dim if spec.text else 0)
    require(spec.head.layers[:1] == (width,), "head.layers", f"{width} inputs", spec.head.layers)
    if spec.fast_decode is not None:
        _check_fast_decode(spec.fast_decode, rule)
    if spec.text is not None:
        check_tokenizer(spec.text.tokenizer, "text.tokenizer")
    require(spec.input in ("image", "pixels"), "input", "image or pixels", spec.input)
    require(spec.ops in ("ort", "standard"), "ops", "ort or standard", spec.ops)
    check_onnxruntime(spec.onnxruntime)
    _check_tasks(spec)
    require(math.isfinite(spec.temperature) and spec.temperature > 0, "temperature", "above 0", spec.temperature)
    _check_decisions(spec)
    if spec.novelty is not None:
        require(spec.novelty.threshold >= 0, "novelty.threshold", "at least 0", spec.novelty.threshold)
        require(0 <= spec.novelty.share <= 1, "novelty.share", "0 to 1", spec.novelty.share)
        require(
            len(spec.novelty.quantized) in (0, 2), "novelty.quantized", "two shares or none", spec.novelty.quantized
        )
    if spec.coverage is not None:
        alone = spec.task == SINGLE_LABEL and not spec.tasks
        require(alone, "coverage", "none but in single-label files of one head", spec.coverage)
        require(0 < spec.coverage.share < 1, "coverage.share", "above 0 and below 1", spec.coverage.share)
        require(spec.coverage.quantile >= 0, "coverage.quantile", "at least 0", spec.coverage.quantile)
        require(spec.coverage.images >= 1, "coverage.images", "at least 1", spec.coverage.images)
    if spec.reference is not None:
        _check_reference(spec.reference, spec)
    if spec.relevance is not None:
        _check_relevance(spec)


def _check_reference(found: ReferenceSpec, spec: ModelSpec) -> None:
    require(found.images >= 1, "reference.images", "at least 1", found.images)
    counts = [*found.labels.values(), 0 if found.novel is None else found.novel]
    require(all(0 <= count <= found.images for count in counts), "reference", "counts of its images", counts)
    labels = () if spec.task == REGRESSION else spec.labels
    require(set(found.labels) == set(labels), "reference.labels", "the labels of the model", [*found.labels])
    require((found.novel is None) == (spec.novelty is None), "reference.novel", "a count with novelty", found.novel)
    sizes = (len(found.mean), len(found.spread))
    require(sizes == (spec.encoder.dim,) * 2, "reference.mean and spread", f"{spec.encoder.dim} values", sizes)
    require(min(found.spread) >= 0, "reference.spread", "at least 0", min(found.spread))


def _check_relevance(spec: ModelSpec) -> None:
    found = spec.relevance
    assert found is not None
    for name, count in (("rows", found.rows), ("columns", found.columns)):
        require(1 <= count <= spec.preprocessing.size, f"relevance.{name}", f"1 to {spec.preprocessing.size}", count)
    cells = found.rows * found.columns
    require(all(len(map_) == cells for map_ in found.golden), "relevance.golden", f"maps of {cells} numbers", "others")
    require(not spec.tasks, "relevance", "none in a file of several heads", spec.relevance)


def _check_tasks(spec: ModelSpec) -> None:
    if not spec.tasks:
        return
    require(int(spec.version.partition(".")[0]) >= 2, "version", f"{SEVERAL_HEADS} with several heads", spec.version)
    names = [spec.name, *(task.name for task in spec.tasks)]
    require(all(map(HEAD_NAME.fullmatch, names)) and len(set(names)) == len(names), "tasks", "names that differ", names)
    require(spec.text is None, "tasks", "none in a model that reads texts", names)
    for task in spec.tasks:
        require(len(task.golden) == len(spec.golden), "tasks", f"{len(spec.golden)} golden answers", len(task.golden))
    mistaken = [label for label in spec.labels if spec.task == REGRESSION and label.partition(".")[0] in names[1:]]
    require(not mistaken, "labels", "none that reads as an answer of another head", mistaken)


def _check_fast_decode(judged: FastDecodeReceipt, rule: Preprocessing) -> None:
    require(judged.side >= rule.resize, "fast_decode.side", f"at least resize ({rule.resize})", judged.side)
    passed = f"at least min_agreement ({judged.min_agreement})"
    require(judged.agreement >= judged.min_agreement, "fast_decode.agreement", passed, judged.agreement)


def _check_patches(rule: Preprocessing) -> None:
    most = (rule.size // max(rule.patch, 1) + 1) ** 2 - 1 if rule.mode == "naflex" else 0
    least = (rule.size // max(rule.patch, 1)) ** 2 if rule.mode == "naflex" else 0
    require((rule.patch > 0) == (rule.mode == "naflex"), "preprocessing.patch", "pixels in mode naflex", rule.patch)
    found = rule.max_patches
    require(least <= found <= most, "preprocessing.max_patches", f"{least} to {most}", found)


def _check_decisions(spec: ModelSpec) -> None:
    require(spec.task in TASKS, "task", " or ".join(TASKS), spec.task)
    require(set(spec.thresholds) <= set(spec.labels), "thresholds", "labels of the model", list(spec.thresholds))
    require(all(0 <= value <= 1 for value in spec.thresholds.values()), "thresholds", "0 to 1", spec.thresholds)
    if spec.task == SINGLE_LABEL and spec.thresholds:
        require(len(spec.labels) == 2, "thresholds", "none, with more than two labels", spec.thresholds)
        require(len(spec.thresholds) == 1, "thresholds", "that of one of the two labels", spec.thresholds)
    if spec.task == REGRESSION:
        require(not spec.thresholds, "thresholds", "none for a regression", spec.thresholds)
        require(spec.temperature == 1, "temperature", "1 for a regression", spec.temperature)
