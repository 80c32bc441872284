"""Another operating point for a model, in a copy of its file."""

from __future__ import annotations

from pathlib import Path

from clip_toolkit.classifier import load
from clip_toolkit.data.dataset import Dataset
from clip_toolkit.errors import DatasetError, ModelError
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.judging.answers import Answers
from clip_toolkit.judging.thresholds import OperatingRule, choose_thresholds
from clip_toolkit.replay import selftest
from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.rewriting import write_with_thresholds
from clip_toolkit.spec.tasks import MULTI_LABEL


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


def write_copy(model: Path, output: Path, thresholds: dict[str, float], rule: OperatingRule, dataset: Dataset) -> None:
    """Write a copy of a model file with other thresholds, and replay its golden vectors.

    Raises:
        ModelError: the copy does not pass the selftest; nothing is written.
        OutputError: it cannot be written.
    """
    how = f"{rule}, chosen by clip-eval on {len(dataset.files)} images of {dataset.source.name}"
    before = "; figures of the training and agreement of a quantization are those of the thresholds before"
    with written_atomically(output) as temporary:
        write_with_thresholds(model, temporary, thresholds, f"{how}{before}")
        failed = [drift for drift in selftest(load(temporary, device="cpu")) if not drift.passed]
        if failed:
            raise ModelError(
                f"{model}: the {failed[0].output} drift by {failed[0].drift:.1e} in the selftest (tolerance "
                f"{failed[0].tolerance:.1e}), so that no copy was written. Run: clip-infer --selftest {model}"
            )
