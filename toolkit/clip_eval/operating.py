"""What is chosen on labelled images for a model, in a copy of its file: an operating point, sets of labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clip_eval.running import Run
from clip_toolkit.classifier import load
from clip_toolkit.data.dataset import TRAIN, VALIDATION, Dataset
from clip_toolkit.errors import DatasetError, ModelError
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.judging.answers import Answers
from clip_toolkit.judging.coverage import check_count, fit_coverage
from clip_toolkit.judging.thresholds import OperatingRule, choose_thresholds
from clip_toolkit.replay import selftest
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.decisions import are_novel
from clip_toolkit.spec.rewriting import write_with
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from clip_toolkit.spec.trust import ReferenceSpec


class Change(NamedTuple):
    """Fields of a spec, and lines of its training summary that say how they were chosen."""

    fields: dict[str, Any]
    notes: dict[str, str | None]


def choose(answers: Answers, spec: ModelSpec, rule: OperatingRule, positive: str | None) -> dict[str, float]:
    """Choose the thresholds of a rule on answers.

    Raises:
        DatasetError: the rule does not suit the model, or a label to detect is on every image or on none.
    """
    positive = positive or next(iter(spec.thresholds), None) if answers.task != MULTI_LABEL else None
    found = choose_thresholds(
        answers.probabilities, answers.targets, answers.task, answers.labels, rule, positive=positive
    )
    for label in found:
        count = int(answers.true[:, answers.labels.index(label)].sum())
        if count in (0, len(answers.true)):
            which = "every image" if count else "no image"
            raise DatasetError(f"--threshold: {which} has the label {label!r}, so that no threshold can be chosen.")
    return found


def thresholds_change(found: dict[str, float], rule: OperatingRule, dataset: Dataset) -> Change:
    """Return what another operating point changes in a spec: reference statistics count labels by the one before."""
    how = f"{rule}, chosen by clip-eval on {_images(dataset)}"
    before = "; figures of the training and agreement of a quantization are those of the thresholds before"
    # Fast decoding was judged by the decisions before, and would be used on.
    fields = {"thresholds": found, "reference": None, "fast_decode": None}
    return Change(fields, {"operating point": f"{how}{before}", "reference": None})


def check_coverage(spec: ModelSpec, dataset: Dataset, share: float) -> None:
    """Refuse images and models that no sets of labels can be calibrated with.

    Raises:
        DatasetError: the task is not single-label, there are too few images, or the model was chosen by some of them.
    """
    if spec.task != SINGLE_LABEL:
        raise DatasetError(f"--coverage: needs labels that exclude each other; the model has the task {spec.task}.")
    check_new(dataset, "--coverage")
    check_count(share, len(dataset.files))


def check_new(dataset: Dataset, flag: str) -> None:
    """Refuse images that a model was chosen by: it does better on them than on others.

    Raises:
        DatasetError: the data say that some of them were.
    """
    known = sorted({TRAIN, VALIDATION} & set(dataset.sides))
    if known:
        raise DatasetError(
            f"{flag}: images of the side {' and '.join(known)} shaped the model, its temperature or its thresholds, "
            "and it does better on them than on others. Take images that it has never seen: --side test."
        )


def coverage_change(answers: Answers, dataset: Dataset, share: float) -> Change:
    """Return what sets of labels change in a spec.

    Raises:
        DatasetError: there are too few images.
    """
    found = fit_coverage(answers.probabilities, answers.targets, share)
    how = f"{share:.4g}, calibrated by clip-eval on {_images(dataset)}, taken to be unknown to all else of the model"
    return Change({"coverage": found}, {"coverage": how})


def reference_change(run: Run, spec: ModelSpec) -> Change:
    """Return what reference statistics change in a spec."""
    (answers, *_), (novelty, *_), embedding = run.answers, run.novelty, run.embedding.astype(np.float64)
    labels = dict(zip(answers.labels, answers.predicted.sum(0).tolist(), strict=True))
    novel = None if novelty is None or spec.novelty is None else int(are_novel(novelty, spec.novelty.threshold).sum())
    mean, spread = (tuple(float(f"{number:.6g}") for number in row) for row in (embedding.mean(0), embedding.std(0)))
    counts = {} if answers.task == REGRESSION else labels
    found = ReferenceSpec(len(embedding), counts, novel, mean, spread)
    return Change({"reference": found}, {"reference": f"statistics by clip-eval of {_images(run.dataset)}"})


def _images(dataset: Dataset) -> str:
    return f"{len(dataset.files)} images of {dataset.source.name}"


def write_copy(model: Path, output: Path, changes: Sequence[Change]) -> None:
    """Write a copy of a model file with changes, and replay its golden vectors.

    Raises:
        ModelError: the copy does not pass the selftest; nothing is written.
        OutputError: it cannot be written.
    """
    fields, notes = (
        {key: value for part in parts for key, value in part.items()} for parts in zip(*changes, strict=True)
    )
    with written_atomically(output) as temporary:
        write_with(model, temporary, fields, notes)
        failed = [drift for drift in selftest(load(temporary, device="cpu")) if not drift.passed]
        if failed:
            raise ModelError(
                f"{model}: the {failed[0].output} drift by {failed[0].drift:.1e} in the selftest (tolerance "
                f"{failed[0].tolerance:.1e}), so that no copy was written. Run: clip-infer --selftest {model}"
            )
