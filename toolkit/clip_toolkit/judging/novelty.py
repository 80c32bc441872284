"""What the distance of images from the training images tells of a model's answers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from clip_toolkit.judging.answers import Answers, Array
from clip_toolkit.judging.curves import area_under_roc
from clip_toolkit.judging.figures import Interval, Samples, figure_text, share_interval
from clip_toolkit.spec.decisions import are_novel
from clip_toolkit.spec.tasks import REGRESSION
from clip_toolkit.spec.trust import NoveltySpec


class NoveltyFigures(NamedTuple):
    """What the distance from the training images tells of these images.

    Attributes:
        novel: share of them that are beyond the threshold.
        auroc: how well the distance tells wrong answers (of several labels, any wrong one) from right ones: 0.5 if not
            at all; NaN without either kind, and for a regression.
    """

    novel: Interval
    auroc: float

    def __str__(self) -> str:
        """Say it in a line."""
        wrong = (
            ""
            if math.isnan(self.auroc)
            else f"; tells wrong answers from right ones with AUROC {self.auroc:.3f} (0.5: not at all)"
        )
        return f"unlike the training images: {figure_text(self.novel)}{wrong}"


def novelty_figures(answers: Answers, novelty: Array, spec: NoveltySpec, samples: Samples) -> NoveltyFigures:
    """Judge the distances ``[n]`` of the images that were answered."""
    wrong = np.asarray(~answers.right.reshape(len(answers.targets), -1).all(1))
    defined = answers.task != REGRESSION and 0 < wrong.sum() < len(wrong)
    novel = share_interval(are_novel(novelty, spec.threshold), samples)
    return NoveltyFigures(novel, float(area_under_roc(wrong, novelty)) if defined else math.nan)
