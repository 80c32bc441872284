"""How a notebook's head is to be read, where its file does not say."""

from __future__ import annotations

from dataclasses import dataclass

from clip_toolkit.spec.tasks import SINGLE_LABEL


@dataclass(frozen=True)
class Reading:
    """What is assumed of a bare state_dict.

    Attributes:
        activation: between the layers, of `clip_export.heads.mlp.ACTIVATIONS`.
        feature_norm: whether the feature is divided by its L2 norm first.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
    """

    activation: str = "relu"
    feature_norm: bool = False
    task: str = SINGLE_LABEL
