"""Estimators of scikit-learn, saved by skops, which builds scikit-learn's own classes and runs no code of the file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clip_export.extra import require
from clip_export.heads.coefficients import Coefficients, fitting, names_of, numbers, task_of
from clip_export.heads.outputs import probabilities
from clip_export.heads.reading import Reading
from clip_toolkit.errors import HeadError, first_line
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL

_CLASSIFIERS = ("LogisticRegression", "LogisticRegressionCV", "MLPClassifier")
_REGRESSORS = ("LinearRegression", "Ridge", "RidgeCV", "MLPRegressor")
_BEFORE = ("StandardScaler", "PCA", "Normalizer")
_OPTIMISERS = [f"sklearn.neural_network._stochastic_optimizers.{name}Optimizer" for name in ("Adam", "SGD")]
_ROWS = 64  # of random features that the estimator is held against
_SAME = 1e-4  # of probabilities, and of values relative to the largest


def coefficients_of_skops(path: Path) -> Coefficients:
    """Read an estimator, or a pipeline of them, and check that its coefficients answer as it does.

    Raises:
        HeadError: the file is damaged, holds other objects, or an estimator that is no head of layers in a row.
        MissingDependencyError: skops is not installed.
    """
    require("skops", "skops")
    estimator = _loaded(path)
    estimator = getattr(estimator, "best_estimator_", estimator)  # of a search for parameters
    steps = [step for _, step in estimator.steps] if type(estimator).__name__ == "Pipeline" else [estimator]
    *before, last = [step for step in steps if step is not None and step != "passthrough"]
    try:
        found = _model(last)
        for i, step in reversed(list(enumerate(before))):
            found = _behind(found, step, first=i == 0)
    except (HeadError, AttributeError) as error:  # an estimator that was never fitted lacks its coefficients
        raise HeadError(f"{path}: {error}") from error
    _check_alike(estimator, before, found, path)
    return found


def _loaded(path: Path) -> Any:
    from skops import io

    try:
        unknown = sorted(set(io.get_untrusted_types(file=path)) - set(_OPTIMISERS))
        if not unknown:
            with warnings.catch_warnings():  # of another version of scikit-learn: its answers are checked
                warnings.simplefilter("ignore")
                return io.load(path, trusted=_OPTIMISERS)
    except Exception as error:  # zipfile, json and skops raise nearly anything on damage
        raise HeadError(f"{path}: not a readable skops file ({first_line(error)})") from error
    raise HeadError(
        f"{path}: holds {', '.join(unknown)}, which is in no head that is read and could run any code. Save a fitted "
        f"{', '.join(_CLASSIFIERS + _REGRESSORS)} or a Pipeline that ends in one."
    )


def _model(model: Any) -> Coefficients:
    name = type(model).__name__
    if name not in _CLASSIFIERS + _REGRESSORS:
        raise HeadError(
            f"{name} is no head that is read: {', '.join(_CLASSIFIERS + _REGRESSORS)} are, behind "
            f"{', '.join(_BEFORE)} in a Pipeline. Train one of them on the same features."
        )
    values, classes = vars(model), names_of(getattr(model, "classes_", ()))
    if name.startswith("MLP"):
        layers = tuple(
            (numbers({"w": w}, "w").T, numbers({"b": b}, "b"))
            for w, b in zip(model.coefs_, model.intercepts_, strict=True)
        )
        task = task_of(model.out_activation_, len(layers[-1][1]))
        return Coefficients(fitting(layers), model.activation, classes, task)
    weight, bias = np.atleast_2d(numbers(values, "coef_")), np.atleast_1d(numbers(values, "intercept_"))
    layer = (weight, np.broadcast_to(bias, len(weight)) if len(bias) == 1 else bias)
    return Coefficients(fitting([layer]), classes=classes, task=REGRESSION if name in _REGRESSORS else SINGLE_LABEL)


def _behind(found: Coefficients, step: Any, *, first: bool) -> Coefficients:
    name, values = type(step).__name__, vars(step)
    width = found.layers[0][0].shape[1]
    if name == "StandardScaler":
        mean = numbers(values, "mean_") if step.with_mean else np.zeros(width)
        scale = numbers(values, "scale_") if step.with_std else np.ones(width)
        return found.behind(1 / scale, -mean / scale, "standardised")
    if name == "PCA":
        matrix = numbers(values, "components_")
        if step.whiten:
            matrix = matrix / np.sqrt(numbers(values, "explained_variance_"))[:, None]
        return found.behind(matrix, -matrix @ numbers(values, "mean_"), f"PCA to {len(matrix)}")
    if name == "Normalizer" and first and step.norm == "l2":
        return Coefficients(found.layers, found.activation, found.classes, found.task, True, found.folded)
    raise HeadError(f"{name} is not read in front of a head: {', '.join(_BEFORE)} are, the last one first and with l2.")


def _check_alike(estimator: Any, before: list[Any], found: Coefficients, path: Path) -> None:
    """Hold the coefficients against the estimator's own answers to features like those that it was fitted on."""
    width = (before[0] if before else estimator).n_features_in_
    features = np.random.default_rng(0).standard_normal((_ROWS, width)).astype(np.float32)
    scaler = next((step for step in before[:1] if type(step).__name__ == "StandardScaler"), None)
    if scaler is not None and scaler.with_std:
        features = (features * scaler.scale_ + (scaler.mean_ if scaler.with_mean else 0)).astype(np.float32)
    reading = found.reading(Reading(), path)
    with torch.inference_mode():
        logits = found.head(reading, path)(torch.from_numpy(features))
    is_regression = reading.task == REGRESSION
    ours = (logits if is_regression else probabilities(logits, reading.task)).numpy()
    theirs = np.asarray(estimator.predict(features) if is_regression else estimator.predict_proba(features))
    scale = float(np.abs(theirs).max()) if is_regression else 1.0
    if not np.abs(ours - theirs.reshape(len(features), -1)).max() <= _SAME * scale:
        raise HeadError(
            f"{path}: its coefficients alone do not give its answers, as with multi_class='ovr', which normalises "
            "sigmoids. Train it with a softmax (the default)."
        )
