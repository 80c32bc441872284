"""scikit-learn's models as heads: by their coefficients and through skops, equal to their own answers or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from clip_export.heads.alternatives import alternatives
from clip_export.heads.files import TrainedHead, load_head
from clip_export.heads.outputs import probabilities
from clip_export.heads.reading import Reading
from clip_toolkit.errors import HeadError
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

RANDOM = np.random.default_rng(5)
FEATURES = (RANDOM.standard_normal((90, 6)) * 3 + 1).astype(np.float32)
KINDS = np.array(["ant", "bee", "cow"])[np.abs(FEATURES[:, :3]).argmax(1)]
TWO, SEVERAL, VALUES = KINDS == "ant", FEATURES[:, :3] > 1, FEATURES[:, :2] @ [[2.0, 0.3], [1.0, 9.0]]
SMALL: dict[str, Any] = {"hidden_layer_sizes": (5, 4), "max_iter": 5, "random_state": 0}

MODELS: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "logistic": (lambda: LogisticRegression(max_iter=500), KINDS, SINGLE_LABEL),
    "of two": (LogisticRegression, TWO, SINGLE_LABEL),
    "standardised": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), KINDS, SINGLE_LABEL),
    "not centred": (lambda: make_pipeline(StandardScaler(with_mean=False), LogisticRegression()), KINDS, SINGLE_LABEL),
    "normalised, PCA": (
        lambda: make_pipeline(Normalizer(), PCA(4, whiten=True), StandardScaler(), LogisticRegression()),
        KINDS,
        SINGLE_LABEL,
    ),
    "mlp": (lambda: make_pipeline(StandardScaler(), MLPClassifier(**SMALL)), KINDS, SINGLE_LABEL),
    "mlp of two": (lambda: MLPClassifier(activation="logistic", **SMALL), TWO, SINGLE_LABEL),
    "mlp, linear": (lambda: MLPClassifier(activation="identity", **SMALL), KINDS, SINGLE_LABEL),
    "mlp, several labels": (lambda: MLPClassifier(activation="tanh", **SMALL), SEVERAL.astype(int), MULTI_LABEL),
    "ridge": (lambda: make_pipeline(StandardScaler(), Ridge()), VALUES, REGRESSION),
    "one value": (LinearRegression, VALUES[:, 0], REGRESSION),
    "mlp of values": (lambda: MLPRegressor(**SMALL), VALUES, REGRESSION),
}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def answers(head: TrainedHead) -> np.ndarray:
    with torch.inference_mode():
        logits = head.module(torch.from_numpy(FEATURES))
    return (logits if head.task == REGRESSION else probabilities(logits, head.task)).numpy()


def own_answers(model: Any, task: str) -> np.ndarray:
    found = model.predict(FEATURES) if task == REGRESSION else model.predict_proba(FEATURES)
    return np.asarray(found).reshape(len(FEATURES), -1)


@pytest.mark.parametrize("name", MODELS)
def test_estimators_through_skops(name: str, tmp_path: Path):
    skops = pytest.importorskip("skops.io")
    make, targets, task = MODELS[name]
    model = make().fit(FEATURES, targets)
    skops.dump(model, tmp_path / "head.skops")
    head = load_head(tmp_path / "head.skops")
    assert head.task == task
    assert head.labels == (("ant", "bee", "cow") if targets is KINDS else None)
    wanted = own_answers(model, task)
    assert np.abs(answers(head) - wanted).max() <= 2e-5 * max(1, np.abs(wanted).max())
    read = head.module.spec.reading("pooled")
    assert ("standardised -> " in read) == ("StandardScaler" in str(model))
    assert head.module.spec.feature_norm == (name == "normalised, PCA")
    assert head.module.spec.source == "coefficients"
    normalised = alternatives(head)["--feature-norm none" if head.module.spec.feature_norm else "--feature-norm l2",]
    assert normalised.spec.feature_norm != head.module.spec.feature_norm


def test_coefficients_of_a_pipeline(tmp_path: Path):
    scaler = StandardScaler().fit(FEATURES)
    model = LogisticRegression().fit(scaler.transform(FEATURES), KINDS)
    names = {"mean_": scaler.mean_, "scale_": scaler.scale_, "classes_": model.classes_}
    np.savez(tmp_path / "head.npz", coef_=model.coef_, intercept_=model.intercept_, **names)
    head = load_head(tmp_path / "head.npz")
    assert np.allclose(answers(head), model.predict_proba(scaler.transform(FEATURES)), atol=1e-5)
    assert (head.labels, head.module.spec.reading("pooled").partition(" on ")[0]) == (
        ("ant", "bee", "cow"),
        "standardised -> 3",
    )


def test_coefficients_of_an_mlp(tmp_path: Path):
    model = MLPClassifier(activation="tanh", **SMALL).fit(FEATURES, KINDS)
    layers = {f"coefs_{i}": value for i, value in enumerate(model.coefs_)}
    layers |= {f"intercepts_{i}": value for i, value in enumerate(model.intercepts_)}
    np.savez(tmp_path / "head.npz", activation=model.activation, out_activation_=model.out_activation_, **layers)
    head = load_head(tmp_path / "head.npz")
    assert np.allclose(answers(head), model.predict_proba(FEATURES), atol=1e-5)
    assert head.module.spec.reading("pooled").startswith("5 -> tanh -> 4 -> tanh -> 3 on")
    for given, message in (
        (Reading(task=MULTI_LABEL), "is single-label, not"),
        (Reading(activation="gelu"), "say their"),
    ):
        with pytest.raises(HeadError, match=message):
            load_head(tmp_path / "head.npz", given)


COEF, INTERCEPT = np.ones((3, 6)), np.zeros(3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"coef_": COEF}, "intercept_: expected finite numbers, got nothing"),
        ({"coef_": COEF, "intercept_": np.zeros(2)}, r"do not fit 6 inputs"),
        ({"coef_": COEF * np.nan, "intercept_": INTERCEPT}, "coef_: expected finite numbers"),
        ({"coef_": COEF, "intercept_": INTERCEPT, "components_": COEF}, "knows no components_"),
        ({"coef_": COEF, "intercept_": INTERCEPT, "scale_": np.ones(6)}, "has mean_ and scale_"),
        ({"coef_": COEF, "intercept_": INTERCEPT, "mean_": np.ones(6), "scale_": np.zeros(6)}, "a scale is 0"),
        ({"mean_": np.ones(6), "scale_": np.ones(6)}, "expected coef_ and intercept_, or coefs_0"),
        ({"coefs_0": COEF.T, "intercepts_0": INTERCEPT, "coefs_1": COEF, "intercepts_1": INTERCEPT}, "one of relu"),
        ({"coef_": COEF.astype(object), "intercept_": INTERCEPT}, "coef_: expected finite numbers, got object"),
    ],
)
def test_coefficients_that_are_no_head(arrays: dict[str, np.ndarray], message: str, tmp_path: Path):
    np.savez(tmp_path / "head.npz", **arrays)
    with pytest.raises(HeadError, match=message):
        load_head(tmp_path / "head.npz")


class Unknown(LogisticRegression):
    """Somebody's own class, which skops does not trust."""


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (RandomForestClassifier(2), "in no head that is read and could run any code"),
        (OneVsRestClassifier(LogisticRegression()), "OneVsRestClassifier is no head"),
        (make_pipeline(StandardScaler(), Normalizer(), LogisticRegression()), "Normalizer is not read"),
        (Unknown(), "could run any code"),
    ],
)
def test_estimators_that_are_no_head(model: Any, message: str, tmp_path: Path):
    skops = pytest.importorskip("skops.io")
    skops.dump(model.fit(FEATURES, KINDS), tmp_path / "head.skops")
    with pytest.raises(HeadError, match=message):
        load_head(tmp_path / "head.skops")


def test_a_skops_file_that_is_unfitted_or_damaged(tmp_path: Path):
    skops = pytest.importorskip("skops.io")
    path = tmp_path / "head.skops"
    skops.dump(LogisticRegression(), path)
    with pytest.raises(HeadError, match="coef_: expected finite numbers, got nothing"):
        load_head(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(HeadError, match="not a readable skops file"):
        load_head(path)
