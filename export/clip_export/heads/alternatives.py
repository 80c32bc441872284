"""Other heads that a notebook's weights allow as well as the one that was assumed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from torch import nn

from clip_export.heads.activations import ACTIVATIONS
from clip_export.heads.files import TrainedHead
from clip_export.heads.given_head import GivenHead
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.reading import Reading
from clip_toolkit.errors import HeadError


def alternatives(head: TrainedHead) -> dict[tuple[str, ...], nn.Module]:
    """Return the head, and variants with one or two things changed, by the ``clip-export`` options for them."""
    changes = _changes(head)
    found: dict[tuple[str, ...], nn.Module] = {(): head.module}
    for count in (1, 2):
        for options in itertools.combinations(changes, count):
            wanted = {name: value for option in options for name, value in changes[option].items()}
            module = _changed(head, wanted) if len(wanted) == count else None
            if module is not None:
                found[options] = module
    return found


def _changes(head: TrainedHead) -> dict[str, dict[str, Any]]:
    norm, reading = head.module.spec.feature_norm, head.reading
    changes: dict[str, dict[str, Any]] = {f"--feature-norm {'none' if norm else 'l2'}": {"feature_norm": not norm}}
    if reading is None or head.module.spec.source != "state_dict":
        return changes
    if len(head.module.spec.layers) > 2:
        changes |= {f"--activation {name}": {"activation": name} for name in ACTIVATIONS if name != reading.activation}
    if " norm" in head.module.spec.form:
        changes |= {f"--norm-position {where}": {"norm_position": where} for where in ("before", "after")}
    return changes


def _changed(head: TrainedHead, changes: dict[str, Any]) -> nn.Module | None:
    if head.rebuild is not None:
        reading = replace(head.reading or Reading(), **changes)
        if isinstance(head.module, GivenHead):  # the user's code has been run once, which is enough
            return GivenHead(head.module.inner, replace(head.module.spec, **changes), head.module.ending).eval()
        try:
            return head.rebuild(reading)
        except HeadError:
            return None
    changed = VLMtoMLP.from_spec(replace(head.module.spec, **changes))
    changed.load_state_dict(head.module.state_dict())
    return changed.eval()
