"""The honest baseline: what a plain linear model of scikit-learn makes of the same features."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clip_export.heads.outputs import r_squared
from clip_export.training.epochs import Examples
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION


def baseline_score(train: Examples, held_out: Examples, task: str) -> float:
    """Score of logistic regression (a regression: ridge regression) on standardised features, defaults otherwise.

    Returns:
        Share of right decisions on ``held_out``, 0 to 1; for a regression R squared, the mean of all values. NaN where
        a label of a multi-label task is on all training images, or on none.
    """
    x, y = train.features.numpy(), train.targets.numpy()
    if task == MULTI_LABEL and (y == y[0]).all(axis=0).any():
        return float("nan")
    model = make_pipeline(StandardScaler(), _estimator(task))
    with warnings.catch_warnings():  # of convergence after 1000 steps: near enough for a baseline
        warnings.simplefilter("ignore")
        model.fit(x, y)
        answers: NDArray[Any] = np.asarray(model.predict(held_out.features.numpy()))
    targets = held_out.targets.numpy()
    if task == REGRESSION:
        return float(r_squared(targets, answers.reshape(targets.shape)).mean())
    return float((answers.reshape(targets.shape) == targets).mean())


def _estimator(task: str) -> Any:
    if task == REGRESSION:
        return Ridge()
    logistic = LogisticRegression(max_iter=1000)
    return MultiOutputClassifier(logistic) if task == MULTI_LABEL else logistic
