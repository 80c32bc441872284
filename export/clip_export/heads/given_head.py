"""A head of any form behind the interface of ours, tried before it is believed."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from clip_export.heads.outputs import unit_length
from clip_export.heads.reading import Reading
from clip_toolkit.errors import HeadError
from clip_toolkit.spec.classifier import HeadSpec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

ROWS = 5
"""Number of random features that a head is tried on."""

_SAME = 1e-4  # relative difference between one run and another of the same head
_SUM = 1e-4  # by which the outputs of a softmax may miss 1
_LEAST = 1e-30  # of a probability, so that its logarithm is finite


class GivenHead(nn.Module):
    """A head of any form behind the interface of ours.

    Attributes:
        spec: its sizes.
        inner: the user's module.
        ending: ``softmax`` or ``sigmoid`` if its outputs are probabilities already, or empty.
    """

    def __init__(self, inner: nn.Module, spec: HeadSpec, ending: str = "") -> None:
        """Wrap a module that maps features ``[batch, dim]`` to ``[batch, outputs]``."""
        super().__init__()
        self.inner, self.spec, self.ending = inner, spec, ending

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``[batch, dim]`` to logits ``[batch, outputs]``."""
        outputs: Tensor = self.inner(unit_length(features) if self.spec.feature_norm else features)
        if outputs.ndim == 1:
            outputs = outputs[:, None]
        if self.ending == "softmax":
            return outputs.clamp_min(_LEAST).log()
        if self.ending == "sigmoid":
            outputs = torch.logit(outputs, eps=1e-7)
        if self.spec.layers[-1] == 2 and outputs.shape[1] == 1:
            return torch.cat([torch.zeros_like(outputs), outputs], dim=1)
        return outputs


class _Part(nn.Module):
    """What a module returns under a name."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.module(features)[self.name]
        return outputs


def returned_parts(module: nn.Module, inputs: int) -> dict[str, nn.Module]:
    """Return a module for each entry of the dict that one returns, or itself under an empty name."""
    outputs = module(_trial_features(inputs))
    return {str(name): _Part(module, name) for name in outputs} if isinstance(outputs, Mapping) else {"": module}


def _trial_features(inputs: int) -> Tensor:
    return torch.randn(ROWS, inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float32)


def tried_head(module: nn.Module, inputs: int, reading: Reading, named: str, *, source: str, word: str) -> GivenHead:
    """Try a module on random features, and wrap it.

    Args:
        module: from features ``[batch, inputs]`` to outputs ``[batch, labels]``, in evaluation mode.
        inputs: channels of the feature.
        reading: what the module does not tell.
        named: the module, for messages.
        source: as in `clip_toolkit.spec.classifier.HeadSpec`.
        word: what it is, for people.

    Raises:
        HeadError: it cannot be traced, or does not answer each feature by itself and every time alike.
    """
    features = _trial_features(inputs)
    outputs = _tried(module, features, named)
    _check_traceable(module, features, named)
    ending = _ending(outputs, reading.task)
    count = outputs.shape[1]
    shown = 2 if count == 1 and reading.task == SINGLE_LABEL else count
    words = [word, "whose outputs are probabilities" if ending else "", "[0, z] of its one output"]
    form = ", ".join(word for word in words[: 3 if shown != count else 2] if word)
    spec = HeadSpec((inputs, shown), "own", 0.0, reading.feature_norm, source=source, form=form)
    return GivenHead(module, spec, ending).eval()


@contextlib.contextmanager
def guarded(named: str) -> Iterator[None]:
    """Run somebody's code without lasting effects on ours, its prints on stderr; its errors become ours."""
    before = (torch.get_default_dtype(), Path.cwd(), list(sys.path), torch.is_grad_enabled(), random.getstate())
    try:
        with torch.random.fork_rng(), contextlib.redirect_stdout(sys.stderr):
            yield
    except HeadError:
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())[:300]
        raise HeadError(f"{named}: raised {type(error).__name__}: {reason}") from error
    finally:
        torch.set_default_dtype(before[0])
        os.chdir(before[1])
        sys.path[:] = before[2]
        torch.set_grad_enabled(before[3])
        random.setstate(before[4])


def _tried(module: nn.Module, features: Tensor, named: str) -> Tensor:
    """Compute outputs ``[n, outputs]`` of features; check that neither repetition nor the batch changes them."""
    outputs, again = module(features), module(features)
    if not isinstance(outputs, Tensor):
        raise HeadError(
            f"{named}: returns {type(outputs).__name__} instead of one tensor. Of several heads let its forward return "
            "a dict, {'age': ..., 'gender': ...}."
        )
    if outputs.ndim not in (1, 2) or len(outputs) != len(features):
        raise HeadError(f"{named}: expected outputs [{len(features)}, labels], got {list(outputs.shape)}.")
    scale = float(outputs.abs().max()) * _SAME
    if not float((outputs - again).abs().max()) <= scale:
        raise HeadError(
            f"{named}: answers the same feature differently each time. A functional dropout needs "
            "training=self.training."
        )
    alone = torch.cat([module(row[None]).reshape(1, -1) for row in features])
    outputs = outputs.reshape(len(features), -1)
    if not float((outputs - alone).abs().max()) <= scale:
        raise HeadError(
            f"{named}: its answer depends on the other images of a batch, as with a softmax over dimension 0 or a "
            "normalisation in training mode."
        )
    return outputs


def _check_traceable(module: nn.Module, features: Tensor, named: str) -> None:
    try:
        torch.export.export(module, (features,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise HeadError(
            f"{named}: cannot be traced by torch.export ({reason}). Its forward must not branch on values of tensors, "
            "leave PyTorch or depend on the batch size."
        ) from error


def _ending(outputs: Tensor, task: str) -> str:
    """``softmax`` or ``sigmoid`` if the outputs are probabilities already, which must not become some again."""
    if task == REGRESSION or float(outputs.min()) < 0 or float(outputs.max()) > 1:
        return ""
    if outputs.shape[1] > 1 and task == SINGLE_LABEL:
        return "softmax" if float((outputs.sum(dim=1) - 1).abs().max()) <= _SUM else ""
    return "sigmoid" if task == MULTI_LABEL or outputs.shape[1] == 1 else ""
