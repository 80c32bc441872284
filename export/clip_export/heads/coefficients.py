"""Heads by the coefficients of scikit-learn's linear and MLP models, under the names that they have there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clip_export.data.npz import read_npz
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.notebooks import LayeredHead, head_from_state_dict
from clip_export.heads.reading import Reading
from clip_toolkit.errors import HeadError
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

Array = NDArray[np.float64]
Layer = tuple[Array, Array]
"""Weights ``[outputs, inputs]`` and bias ``[outputs]``."""

_ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "logistic": "sigmoid", "identity": None}
_TEXTS = ("classes_", "activation", "out_activation_")
_NAMES = ("coef_", "intercept_", "coefs_0", "intercepts_0", "mean_", "scale_", *_TEXTS)


@dataclass(frozen=True, eq=False)
class Coefficients:
    """A model of scikit-learn that is a head.

    Attributes:
        layers: what it computes, with all that stands before folded into the first.
        activation: scikit-learn's name of what stands between them.
        classes: names of the labels, or None if they are numbers.
        task: one of `clip_toolkit.spec.tasks.TASKS`, or None if the coefficients do not tell.
        feature_norm: whether the feature is divided by its L2 norm first.
        folded: what stands before, in words.
    """

    layers: tuple[Layer, ...]
    activation: str = "identity"
    classes: tuple[str, ...] | None = None
    task: str | None = None
    feature_norm: bool = False
    folded: tuple[str, ...] = ()

    def behind(self, scale: Array, shift: Array, word: str) -> Coefficients:
        """Return the model behind ``scale * x + shift``, or ``scale @ x + shift`` for a matrix."""
        (weight, bias), *others = self.layers
        first = (weight @ scale if scale.ndim == 2 else weight * scale, bias + weight @ shift)
        return replace(self, layers=(first, *others), folded=(word, *self.folded))

    def reading(self, given: Reading, path: Path) -> Reading:
        """Add what the coefficients tell to what the user said.

        Raises:
            HeadError: the user said otherwise.
        """
        if given.says_layers:
            raise HeadError(f"{path}: coefficients say their own layers. Leave out --activation and --head-class.")
        if self.task is not None and given.task not in (SINGLE_LABEL, self.task):
            raise HeadError(f"{path}: its model is {self.task}, not {given.task}. Leave out --task.")
        return replace(
            given,
            activation=_ACTIVATIONS[self.activation] or given.activation,
            task=self.task or given.task,
            feature_norm=given.feature_norm or self.feature_norm,
        )

    def head(self, reading: Reading, path: Path) -> VLMtoMLP | LayeredHead:
        """Build the head."""
        place = 1 if _ACTIVATIONS[self.activation] is None else 2  # as in an nn.Sequential with activations between
        weights = {
            f"{i * place}.{name}": torch.tensor(value)
            for i, layer in enumerate(self.layers)
            for name, value in zip(("weight", "bias"), layer, strict=True)
        }
        head = head_from_state_dict(weights, reading, path)
        form = head.spec.form
        if self.folded:
            form = " -> ".join(
                [*self.folded, form or f" -> {reading.activation} -> ".join(map(str, head.spec.layers[1:]))]
            )
        head.spec = replace(head.spec, source="coefficients", form=form)
        return head


def coefficients_of_npz(path: Path) -> Coefficients:
    """Read coefficients, under scikit-learn's names, from an ``.npz`` file.

    ``coef_`` and ``intercept_``, or ``coefs_0``, ``intercepts_0``, ``coefs_1``, ... with ``activation``; perhaps
    ``mean_`` and ``scale_`` of a StandardScaler before, ``classes_`` and ``out_activation_``.

    Raises:
        HeadError: the file is damaged, or holds other or contradictory arrays.
    """
    try:
        arrays = read_npz(path, HeadError)
        _check_names(arrays)
        found = Coefficients(_layers(arrays), _text(arrays, "activation") or "identity", _classes(arrays))
        found = replace(found, task=task_of(_text(arrays, "out_activation_"), len(found.layers[-1][1])))
        return _standardised(found, arrays)
    except HeadError as error:
        raise HeadError(f"{path}: {error}") from error


def _check_names(arrays: Mapping[str, Any]) -> None:
    unknown = [name for name in arrays if name not in _NAMES and not name.startswith(("coefs_", "intercepts_"))]
    if unknown:
        raise HeadError(f"knows no {', '.join(unknown)}, but {', '.join(_NAMES)} and further coefs_, intercepts_.")
    if ("coef_" in arrays) == ("coefs_0" in arrays):
        raise HeadError("expected coef_ and intercept_, or coefs_0, intercepts_0, coefs_1 and so on.")
    activation = _text(arrays, "activation")
    if ("coefs_1" in arrays and activation is None) or activation not in (None, *_ACTIVATIONS):
        raise HeadError(f"expected activation, one of {', '.join(_ACTIVATIONS)}, got {activation}.")


def _layers(arrays: Mapping[str, Any]) -> tuple[Layer, ...]:
    if "coef_" in arrays:
        weight, bias = np.atleast_2d(numbers(arrays, "coef_")), np.atleast_1d(numbers(arrays, "intercept_"))
        return fitting(((weight, np.broadcast_to(bias, len(weight)) if len(bias) == 1 else bias),))
    count = sum(name.startswith("coefs_") for name in arrays)
    return fitting(tuple((numbers(arrays, f"coefs_{i}").T, numbers(arrays, f"intercepts_{i}")) for i in range(count)))


def fitting(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Return the layers if each fits the one before.

    Raises:
        HeadError: one does not.
    """
    width = layers[0][0].shape[-1]
    for weight, bias in layers:
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise HeadError(f"weights {list(weight.shape)} and bias {list(bias.shape)} do not fit {width} inputs.")
        width = len(weight)
    return tuple(layers)


def _standardised(found: Coefficients, arrays: Mapping[str, Any]) -> Coefficients:
    if ("mean_" in arrays) != ("scale_" in arrays):
        raise HeadError("a StandardScaler has mean_ and scale_: save both, zeros or ones for what it leaves out.")
    if "mean_" not in arrays:
        return found
    mean, scale = numbers(arrays, "mean_"), numbers(arrays, "scale_")
    if mean.shape != scale.shape or mean.shape != found.layers[0][0].shape[1:] or not scale.all():
        raise HeadError(f"mean_ {list(mean.shape)} and scale_ {list(scale.shape)} do not fit, or a scale is 0.")
    return found.behind(1 / scale, -mean / scale, "standardised")


def numbers(arrays: Mapping[str, Any], name: str) -> Array:
    """Return an array as float64.

    Raises:
        HeadError: it is missing, or not all of it are finite numbers.
    """
    value = np.asarray(arrays.get(name))
    if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
        raise HeadError(f"{name}: expected finite numbers, got {value.dtype if name in arrays else 'nothing'}.")
    return value.astype(np.float64)


def _text(arrays: Mapping[str, Any], name: str) -> str | None:
    return str(arrays[name]) if name in arrays else None


def _classes(arrays: Mapping[str, Any]) -> tuple[str, ...] | None:
    return names_of(arrays["classes_"]) if "classes_" in arrays else None


def names_of(classes: Any) -> tuple[str, ...] | None:
    """Names of labels; None for numbers, which name nothing."""
    names = np.asarray(classes).ravel().tolist()
    return tuple(names) if names and all(isinstance(name, str) for name in names) else None


def task_of(out_activation: str | None, outputs: int) -> str | None:
    """Return the task by an MLP's last activation; None if it is not known.

    Raises:
        HeadError: it is none of scikit-learn's.
    """
    tasks = {"softmax": SINGLE_LABEL, "logistic": SINGLE_LABEL if outputs == 1 else MULTI_LABEL, "identity": REGRESSION}
    if out_activation not in (None, *tasks):
        raise HeadError(f"expected out_activation_, one of {', '.join(tasks)}, got {out_activation}.")
    return tasks.get(out_activation) if out_activation is not None else None
