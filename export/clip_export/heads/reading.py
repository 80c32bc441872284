"""How a notebook's head is to be read, where its file does not say."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clip_toolkit.options import Option
from clip_toolkit.spec.tasks import SINGLE_LABEL

FEATURE_NORM = Option("divide the feature by its L2 norm first (default: none)", choices=("none", "l2"))
"""Of heads that are trained here, and of those that come from a notebook."""


@dataclass(frozen=True)
class Reading:
    """What is assumed of a bare state_dict.

    Attributes:
        activation: between the layers, of `clip_export.heads.activations.ACTIVATIONS`.
        feature_norm: whether the feature is divided by its L2 norm first.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        norm_position: ``before`` or ``after``: where a BatchNorm or LayerNorm stands relative to the activation; None
            for what the numbers of an nn.Sequential say, and before it where there are none.
        head_class: ``FILE.py:CLASS``, the user's own module, whose code is run; None to run nothing.
        head_args: arguments of that class, by name.
        trust_program: whether a head that is a program may be loaded and run.
        tasks: of several heads in one file, those that ``task`` does not hold for, by name.
    """

    activation: str = "relu"
    feature_norm: bool = False
    task: str = SINGLE_LABEL
    norm_position: str | None = None
    head_class: str | None = None
    head_args: tuple[tuple[str, object], ...] = ()
    trust_program: bool = False
    tasks: tuple[tuple[str, str], ...] = ()

    def of(self, head: str) -> Reading:
        """Return the reading of one of several heads."""
        return replace(self, task=dict(self.tasks).get(head, self.task))

    @property
    def says_layers(self) -> bool:
        """Whether it says something of the layers, which only a bare state_dict leaves open."""
        return (self.activation, self.norm_position, self.head_class) != ("relu", None, None)
