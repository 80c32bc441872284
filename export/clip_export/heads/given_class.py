"""A head by its own class, from the user's file, whose code is run because they named it."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from clip_export.heads.checkpoints import Weights
from clip_export.heads.given_head import GivenHead, guarded, returned_parts, tried_head
from clip_export.heads.reading import Reading
from clip_toolkit.errors import HeadError


def heads_from_class(weights: Weights, reading: Reading, path: Path) -> dict[str, GivenHead]:
    """Build the named class, load the weights into it, and try each head that it returns.

    Args:
        weights: of the head, by name.
        reading: names the class and its arguments.
        path: of the weights, for messages.

    Returns:
        Heads by the names under which a dict returns them; the one under an empty name where there is no dict.

    Raises:
        HeadError: the file or class is missing, raises, needs other arguments, does not fit the weights, cannot be
            traced, or does not answer each feature by itself and every time alike.
    """
    assert reading.head_class is not None
    named, arguments = reading.head_class, dict(reading.head_args)
    with guarded(named):
        module = _loaded(_class_of(named), arguments, weights, named, path)
        word, inputs = type(module).__name__, _inputs(module, named)
        return {
            name: tried_head(part, inputs, reading.of(name), f"{named} {name}".strip(), source="class", word=word)
            for name, part in returned_parts(module, inputs).items()
        }


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
