"""A head by its own class, from the user's file: the one place where somebody's code is run, and only when named."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import os
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clip_export.heads.checkpoints import Weights
from clip_export.heads.outputs import unit_length
from clip_export.heads.reading import Reading
from clip_toolkit.errors import HeadError
from clip_toolkit.spec.classifier import HeadSpec
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

_ROWS = 5  # of random features that the head is tried on
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


def head_from_class(weights: Weights, reading: Reading, path: Path) -> GivenHead:
    """Build the named class, load the weights into it, and try it.

    Args:
        weights: of the head, by name.
        reading: names the class and its arguments.
        path: of the weights, for messages.

    Raises:
        HeadError: the file or class is missing, raises, needs other arguments, does not fit the weights, cannot be
            traced, or does not answer each feature by itself and every time alike.
    """
    assert reading.head_class is not None
    named, arguments = reading.head_class, dict(reading.head_args)
    with _guarded(named):
        module = _loaded(_class_of(named), arguments, weights, named, path)
        inputs = _inputs(module, named)
        features = torch.randn(_ROWS, inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
        outputs = _tried(module, features, named)
        _check_traceable(module, features, named)
    ending = _ending(outputs, reading.task)
    count = outputs.shape[1]
    shown = 2 if count == 1 and reading.task == SINGLE_LABEL else count
    words = [type(module).__name__, "whose outputs are probabilities" if ending else "", "[0, z] of its one output"]
    form = ", ".join(word for word in words[: 3 if shown != count else 2] if word)
    spec = HeadSpec((inputs, shown), "own", 0.0, reading.feature_norm, source="class", form=form)
    return GivenHead(module, spec, ending).eval()


@contextlib.contextmanager
def _guarded(named: str) -> Iterator[None]:
    """Run the user's code without lasting effects on ours, its prints on stderr; its errors become ours."""
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


def _class_of(named: str) -> type[nn.Module]:
    name, _, attribute = named.rpartition(":")
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        raise HeadError(
            f"--head-class {named}: expected FILE.py:CLASS of a file that is there. Copy the class into one."
        )
    spec = importlib.util.spec_from_file_location(f"_notebook_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    sys.path.insert(0, str(path.absolute().parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as an import would: dataclasses look themselves up there
    spec.loader.exec_module(module)
    found = getattr(module, attribute, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, nn.Module)]
        raise HeadError(f"{name}: has no nn.Module {attribute!r}. It has {', '.join(classes) or 'none'}.")
    return found


def _loaded(kind: type[nn.Module], arguments: Mapping[str, Any], weights: Weights, named: str, path: Path) -> nn.Module:
    try:
        module = kind(**arguments)
    except TypeError as error:
        raise HeadError(
            f"{named}: cannot be built with {dict(arguments) or 'no arguments'} ({error}). Its arguments are "
            f"{inspect.signature(kind)}; give them with --head-args NAME=VALUE ..."
        ) from error
    try:
        module.load_state_dict(_below_common_prefix(weights, module))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise HeadError(
            f"{named}: does not fit the weights of {path} ({reason}). Sizes are given with --head-args."
        ) from error
    return module.float().eval().requires_grad_(False)


def _below_common_prefix(weights: Weights, module: nn.Module) -> Weights:
    """Return the weights under the module's own names; a checkpoint may prefix them with the head's attribute."""
    wanted = set(module.state_dict())
    if wanted == set(weights):
        return weights
    prefixes = {name.partition(".")[0] + "." for name in weights}
    shorter = {name.partition(".")[2]: value for name, value in weights.items()}
    return shorter if len(prefixes) == 1 and set(shorter) & wanted else weights


def _inputs(module: nn.Module, named: str) -> int:
    """Channels of the feature: those of the first layer that has any."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            return int(part.in_features)
        if isinstance(part, nn.BatchNorm1d):
            return int(part.num_features)
        if isinstance(part, nn.LayerNorm):
            return int(part.normalized_shape[-1])
    raise HeadError(f"{named}: has no Linear or normalisation layer, so that the width of its feature is unknown.")


def _tried(module: nn.Module, features: Tensor, named: str) -> Tensor:
    """Compute outputs ``[n, outputs]`` of features; check that neither repetition nor the batch changes them."""
    outputs, again = module(features), module(features)
    if not isinstance(outputs, Tensor):
        raise HeadError(
            f"{named}: returns {type(outputs).__name__} instead of one tensor. Of several heads export each by itself: "
            "give a class whose forward returns that one."
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
