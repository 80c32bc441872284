"""Other heads that a notebook's weights allow as well as the one that was assumed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from torch import nn

from clip_export.heads.files import TrainedHead
from clip_export.heads.mlp import ACTIVATIONS, VLMtoMLP


def alternatives(head: TrainedHead) -> dict[tuple[str, ...], nn.Module]:
    """Return the head, and heads with one or two things changed, by the options that ask for them."""
    changes = _changes(head.module)
    found: dict[tuple[str, ...], nn.Module] = {(): head.module}
    for count in (1, 2):
        for options in itertools.combinations(changes, count):
            wanted: dict[str, Any] = {}
            for option in options:
                wanted |= changes[option]
            if len(wanted) == count:
                found[options] = _changed(head.module, wanted)
    return found


def _changes(head: VLMtoMLP) -> dict[str, dict[str, Any]]:
    spec = head.spec
    changes: dict[str, dict[str, Any]] = {
        f"--feature-norm {'none' if spec.feature_norm else 'l2'}": {"feature_norm": not spec.feature_norm}
    }
    if len(spec.layers) > 2 and spec.source != "clip-train":
        changes |= {f"--activation {name}": {"activation": name} for name in ACTIVATIONS if name != spec.activation}
    return changes


def _changed(head: VLMtoMLP, changes: dict[str, Any]) -> VLMtoMLP:
    changed = VLMtoMLP.from_spec(replace(head.spec, **changes))
    changed.load_state_dict(head.state_dict())
    return changed.eval()
