"""From which probability on a label is said: the operating point, chosen on validation data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.errors import DatasetError
from clip_toolkit.spec.tasks import MULTI_LABEL, SINGLE_LABEL

RULES = "most-probable, youden, sensitivity=SHARE or specificity=SHARE"


class OperatingRule(NamedTuple):
    """How a threshold is chosen; its text is one of `RULES`.

    Attributes:
        kind: ``most-probable`` (no threshold), ``youden`` (largest sum of sensitivity and specificity),
            ``sensitivity`` (at least ``share``, then as specific as can be) or ``specificity`` (the reverse).
        share: above 0 and up to 1, where the kind has one.
    """

    kind: str = "most-probable"
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> OperatingRule:
        """Read a text such as ``specificity=0.9``.

        Raises:
            ValueError: it is none of `RULES`.
        """
        kind, equals, number = text.partition("=")
        if kind in ("most-probable", "youden") and not equals:
            return cls(kind)
        try:
            share = float(number)
        except ValueError:
            share = 0.0
        if kind not in ("sensitivity", "specificity") or not 0 < share <= 1:
            raise ValueError(f"expected {RULES} with a SHARE above 0 and up to 1, got {text!r}")
        return cls(kind, share)

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return self.kind if self.share is None else f"{self.kind}={self.share}"


def choose_thresholds(
    probabilities: NDArray[Any],
    targets: NDArray[Any],
    task: str,
    labels: tuple[str, ...],
    rule: OperatingRule,
    *,
    positive: str | None = None,
) -> dict[str, float]:
    """Thresholds as in `clip_toolkit.spec.classifier.ModelSpec`.

    Args:
        probabilities: ``[n, labels]``, calibrated, of examples that were not learnt from.
        targets: as in `clip_toolkit.data.dataset.Dataset`.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        labels: class names.
        rule: how to choose.
        positive: of two labels the one that is looked for; the last one if None.

    Raises:
        DatasetError: the rule needs two labels, or ``positive`` is none of them.
    """
    check_rule(rule, task, labels, positive)
    if rule.kind == "most-probable":
        return {}
    if task == MULTI_LABEL:
        columns = enumerate(labels)
        return {label: threshold_at(probabilities[:, i], targets[:, i] > 0.5, rule) for i, label in columns}
    index = positive_index(labels, positive)
    return {labels[index]: threshold_at(probabilities[:, index], targets == index, rule)}


def check_rule(rule: OperatingRule, task: str, labels: tuple[str, ...], positive: str | None = None) -> None:
    """Refuse a rule that does not suit a task.

    Raises:
        DatasetError: the rule needs two labels, or ``positive`` is none of them.
    """
    two = task == SINGLE_LABEL and len(labels) == 2
    if rule.kind != "most-probable" and not (two or task == MULTI_LABEL):
        raise DatasetError(f"operating point {rule.kind}: needs two labels, or a multi-label task; there are {labels}.")
    if positive is not None:
        positive_index(labels, positive)


def positive_index(labels: tuple[str, ...], positive: str | None) -> int:
    """Index of the label that is looked for.

    Raises:
        DatasetError: there is no such label.
    """
    if positive is not None and positive not in labels:
        raise DatasetError(f"positive label: expected one of {', '.join(labels)}, got {positive!r}.")
    return len(labels) - 1 if positive is None else labels.index(positive)


def threshold_at(scores: NDArray[Any], positive: NDArray[np.bool_], rule: OperatingRule) -> float:
    """Pick the threshold of a rule for scores 0 to 1.

    It lies half way between two scores, so that rounding cannot move an example across it.
    """
    ordered = np.unique(np.concatenate([[0.0], scores.astype(np.float64), [1.0]]))
    candidates = (ordered[1:] + ordered[:-1]) / 2
    share = rule.share or 0.0
    found, missed = np.sort(scores[positive]), np.sort(scores[~positive])
    sensitivity = 1 - np.searchsorted(found, candidates) / max(1, len(found))
    specificity = np.searchsorted(missed, candidates) / max(1, len(missed))
    if rule.kind == "sensitivity":
        return float(candidates[np.flatnonzero(sensitivity >= share)[-1:]].max(initial=0.0))
    if rule.kind == "specificity":
        return float(candidates[np.flatnonzero(specificity >= share)[:1]].min(initial=1.0))
    return float(candidates[np.argmax(sensitivity + specificity)])
