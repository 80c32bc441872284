"""The heads that are tried, each fitted without looking at what judges it, and folds to judge them by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from torch import Tensor, nn

from clip_export.data.splits import linked_files
from clip_export.heads.mlp import VLMtoMLP
from clip_export.training.epochs import Examples
from clip_export.training.judging.baseline import fit_baseline
from clip_export.training.judging.evaluation import answer
from clip_export.training.loop import train_head
from clip_export.training.options import TrainingOptions
from clip_toolkit.data.dataset import Dataset, memberships
from clip_toolkit.errors import DatasetError
from clip_toolkit.judging.figures import Interval, Samples, score_interval
from clip_toolkit.spec.tasks import SINGLE_LABEL

FOLDS = 5

# A fixed number of epochs: choosing one on the images that judge would flatter the head.
_MLP = TrainingOptions(
    epochs=30, learning_rate=1e-3, optimizer="adamw", weight_decay=1e-2, standardise=True, keep_last=True
)

Fold = tuple[list[int], list[int]]
"""Rows to learn from, and rows to judge by."""


def linear(train: Examples, task: str) -> VLMtoMLP:
    """Fit logistic regression on standardised features, as a head that takes plain ones.

    Raises:
        DatasetError: a label of a multi-label task is on all images, or on none.
    """
    found = fit_baseline(train, task)
    if found is None:
        raise DatasetError("a label is on all images that a fold learns from, or on none. Add images, or leave it out.")
    head = VLMtoMLP(train.features.shape[1], (), len(found.bias), dropout=0.0)
    weight = found.weight / found.scaling.std
    head.load_state_dict({"layers.0.weight": weight, "layers.0.bias": found.bias - weight @ found.scaling.mean})
    return head.eval()


def mlp(train: Examples, task: str) -> VLMtoMLP:
    """Train the default head for a fixed number of epochs."""
    outputs = train.targets.shape[1] if train.targets.ndim > 1 else int(train.targets.max()) + 1
    return train_head(train, train, outputs, _MLP, task=task).head


HEADS: dict[str, Callable[[Examples, str], VLMtoMLP]] = {"linear": linear, "mlp": mlp}
HIDDEN = {"linear": (), "mlp": _MLP.hidden_dim}
"""Hidden layers of each."""


def folds(dataset: Dataset, contents: Sequence[str], learnt: Sequence[int], seed: int) -> list[Fold]:
    """Split the images that may be learnt from into folds; groups and files of the same content stay together.

    Raises:
        DatasetError: there are too few images of a label, or groups too large, for `FOLDS` folds.
    """
    together = linked_files(dataset, contents, list(learnt))
    unit_of = {index: number for number, unit in enumerate(together) for index in unit}
    groups, counts = np.array([unit_of[index] for index in learnt]), memberships(dataset)[list(learnt)]
    for name, column in zip(dataset.labels, counts.T, strict=True):
        found = len(set(groups[column > 0]))
        if found < FOLDS:
            raise DatasetError(
                f"label {name}: cross-validation in {FOLDS} folds needs at least {FOLDS} images, or groups, to learn "
                f"from beside those held out, got {found}. Add {FOLDS - found} or more."
            )
    rows, targets = np.arange(len(learnt)), np.asarray(dataset.targets)[list(learnt)]
    if dataset.task == SINGLE_LABEL:
        parts = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(rows, targets, groups)
    else:
        parts = GroupKFold(FOLDS, shuffle=True, random_state=seed).split(rows, targets, groups)
    found_folds = [(train.tolist(), judged.tolist()) for train, judged in parts]
    for train, judged in found_folds:
        absent = np.flatnonzero(counts[train].sum(0) == 0)
        if len(absent) or not judged:
            raise DatasetError(
                f"label {dataset.labels[absent[0] if len(absent) else 0]}: its groups are too large for {FOLDS} folds. "
                "Use smaller ones."
            )
    return found_folds


def cross_validated(
    head: str,
    learnt: Examples,
    judged: Tensor,
    *,
    parts: Sequence[Fold],
    dataset: Dataset,
    groups: Sequence[str],
) -> Interval:
    """Share of right decisions on images that the head has not learnt from.

    Args:
        head: a name of `HEADS`.
        learnt: float32 features ``[n, dim]`` that are learnt from, and the targets.
        judged: ``[n, dim]``, features of the same images as the file computes them.
        parts: of `folds`.
        dataset: its task and labels.
        groups: of each image, for the interval.
    """
    logits = torch.empty(len(judged), len(dataset.labels))
    for train, rows in parts:
        fitted = HEADS[head](Examples(learnt.features[train], learnt.targets[train]), dataset.task)
        with torch.inference_mode():
            logits[rows] = fitted(judged[rows])
    answers = answer(nn.Identity(), Examples(logits, learnt.targets), dataset.labels, task=dataset.task)
    return score_interval(answers, Samples.of(len(judged), groups))
