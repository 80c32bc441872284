"""Sets of labels that hold the right one with a promised probability: split-conformal prediction.

The score is that of adaptive prediction sets (Romano, Sesia and Candes 2020, https://arxiv.org/abs/2006.02544), not
randomised, and without the label's own probability: the label that completes the mass is always in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from clip_toolkit.errors import DatasetError
from clip_toolkit.judging.answers import Answers, Array
from clip_toolkit.judging.figures import Interval, Samples, figure_text, share_interval
from clip_toolkit.spec.decisions import label_sets, mass_before
from clip_toolkit.spec.trust import CoverageSpec

_APART = 1e-6  # from the largest score: by how much probabilities differ between machines


@dataclass(frozen=True)
class SetFigures:
    """How sets of labels do.

    Attributes:
        promised: the share of images whose set holds the right label.
        coverage: the share that it really is.
        size: mean number of labels in a set.
        alone: share of the sets that have a single label.
        worst: the label whose images are covered least, and their share.
    """

    promised: float
    coverage: Interval
    size: float
    alone: float
    worst: tuple[str, Interval]

    def __str__(self) -> str:
        """Say it in a line."""
        label, share = self.worst
        return (
            f"sets at {self.promised:.4g}: hold the right label of {figure_text(self.coverage)} of the images; "
            f"{self.size:.2f} labels on average, a single one in {self.alone:.1%}; "
            f"least of the label {label}, {share.value:.2%}"
        )


def set_figures(answers: Answers, spec: CoverageSpec, samples: Samples) -> SetFigures:
    """Judge the sets of answers to a single-label task."""
    sets = label_sets(answers.probabilities, spec.quantile)
    covered = np.asarray((sets & answers.true).any(1))
    shares = {
        label: share_interval(covered, samples, among=answers.true[:, index])
        for index, label in enumerate(answers.labels)
        if answers.true[:, index].any()
    }
    worst = min(shares.items(), key=lambda item: item[1].value)
    sizes = sets.sum(1)
    coverage = share_interval(covered, samples)
    return SetFigures(spec.share, coverage, float(sizes.mean()), float((sizes == 1).mean()), worst)


def check_count(share: float, count: int) -> None:
    """Refuse too few images: only the set of all labels could keep the promise then.

    Raises:
        DatasetError: there are fewer than the promise needs; the message says how many those are.
    """
    least = math.ceil(round(1 / (1 - share), 9)) - 1
    if count < least:
        raise DatasetError(
            f"--coverage {share:g}: needs at least {least} images to promise that; there are {count}. Add images, or "
            "name a smaller share."
        )


def fit_coverage(probabilities: Array, targets: Array, share: float) -> CoverageSpec:
    """Choose the quantile so that the set of a further image holds the right label with probability ``share``.

    Of ``n`` scores it is that of rank ``ceil((n + 1) share)`` (Vovk et al. 2005, section 2.2), and half way on to the
    next one, so that rounding cannot move that image's label out.

    Args:
        probabilities: ``[n, labels]``, of a single-label model, of images that it was not made with in any way.
        targets: int64 ``[n]``, index of the right label.
        share: above 0 and below 1.

    Raises:
        DatasetError: there are too few images for the share.
    """
    count = len(targets)
    check_count(share, count)
    scores = np.sort(mass_before(probabilities)[np.arange(count), targets])
    rank = math.ceil(round((count + 1) * share, 9))
    quantile = float(np.append(scores, scores[-1] + _APART)[rank - 1 : rank + 1].mean())
    return CoverageSpec(share, quantile, count)


def coverage_spread(coverage: CoverageSpec) -> float:
    """Return how far the share of further images that are covered is from the promise: one standard deviation.

    With ``n`` calibration images it follows a beta distribution (Vovk 2012, https://arxiv.org/abs/1209.2673).
    """
    inside = math.ceil(round((coverage.images + 1) * coverage.share, 9))
    outside = coverage.images + 1 - inside
    total = coverage.images + 1
    return math.sqrt(inside * outside / (total + 1)) / total
