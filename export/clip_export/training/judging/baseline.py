"""The honest baseline: a plain linear model of scikit-learn on the same features, judged as the head is."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from torch import Tensor, nn
from torch.nn import functional

from clip_export.heads.outputs import unit_length
from clip_export.training.epochs import Examples
from clip_export.training.scaling import Scaling
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION


def baseline_name(task: str) -> str:
    """Return what the baseline of a task is called."""
    return "ridge regression" if task == REGRESSION else "logistic regression"


class Baseline(nn.Module):
    """A linear model on standardised features, from ``[n, dim]`` to logits or values ``[n, labels]``."""

    def __init__(self, scaling: Scaling, weight: Tensor, bias: Tensor, *, feature_norm: bool) -> None:
        """Take what was fitted; with ``feature_norm`` features are divided by their L2 norm first."""
        super().__init__()
        self.scaling, self.weight, self.bias, self.feature_norm = scaling, weight, bias, feature_norm

    def forward(self, features: Tensor) -> Tensor:
        """Scale features and weigh them."""
        read = unit_length(features) if self.feature_norm else features
        return functional.linear(self.scaling.apply(read), self.weight, self.bias)


def fit_baseline(train: Examples, task: str, *, feature_norm: bool = False) -> Baseline | None:
    """Fit logistic regression (a regression: ridge regression), scikit-learn's defaults, on standardised features.

    Args:
        train: examples to learn from; each label of a single-label task is among them.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        feature_norm: divide features by their L2 norm first, as the head does that it is compared with.

    Returns:
        The model; None where a label of a multi-label task is on all training images, or on none.
    """
    targets = train.targets.numpy()
    if task == MULTI_LABEL and (targets == targets[0]).all(axis=0).any():
        return None
    read = unit_length(train.features) if feature_norm else train.features
    scaling = Scaling.fitted(read)
    model = _estimator(task)
    with warnings.catch_warnings():  # of convergence after 1000 steps: near enough for a baseline
        warnings.simplefilter("ignore")
        model.fit(scaling.apply(read).double().numpy(), targets)
    weight, bias = (torch.from_numpy(rows).float() for rows in _coefficients(model, task))
    return Baseline(scaling, weight, bias, feature_norm=feature_norm)


def _estimator(task: str) -> Any:
    if task == REGRESSION:
        return Ridge()
    logistic = LogisticRegression(max_iter=1000)
    return MultiOutputClassifier(logistic) if task == MULTI_LABEL else logistic


def _coefficients(model: Any, task: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weights ``[labels, dim]`` and biases ``[labels]``; of two classes scikit-learn has those of the second alone."""
    if task == MULTI_LABEL:
        rows = model.estimators_
        return np.concatenate([row.coef_ for row in rows]), np.concatenate([row.intercept_ for row in rows])
    weight, bias = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
    if task == REGRESSION or len(weight) > 1:
        return weight, bias
    return np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
