"""Where an int8 file will run: a graph that is right on one processor saturates on another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clip_toolkit.errors import QuantizationError
from clip_toolkit.runtime.processor import VNNI, has_vnni, is_x86


@dataclass(frozen=True)
class Target:
    """The integers that a kind of processor multiplies fast and without saturation.

    Attributes:
        name: as ``clip-export --target`` takes it.
        activation: dtype of the activations.
        largest_weight: largest absolute value of an int8 weight.
    """

    name: str
    activation: type[np.uint8 | np.int8]
    largest_weight: int = 127

    @property
    def is_here(self) -> bool:
        """Whether this machine's speed says anything about the target's."""
        return self.name.startswith("x86") if is_x86() else self.name == "arm64"


# x86 without VNNI adds two products of a uint8 and an int8 in 16 bits: 2 * 255 * 64 = 32,640 still fits, larger weights
# saturate silently (microsoft/onnxruntime#5849). Arm's dot products take two signed operands; on x86 those are slow.
TARGETS = {
    target.name: target
    for target in (
        Target("x86-vnni", np.uint8),
        Target("x86", np.uint8, largest_weight=64),
        Target("arm64", np.int8),
        Target("web", np.uint8),
    )
}


def find_target(name: str) -> Target:
    """Look up a target of `TARGETS`; ``auto`` is the one that this machine is.

    Raises:
        QuantizationError: this x86 machine has no VNNI, which the file would need: nothing could be proved here.
    """
    if name == "auto":
        return TARGETS[("x86-vnni" if has_vnni() else "x86") if is_x86() else "arm64"]
    if name not in TARGETS:
        raise QuantizationError(f"target: expected auto, {', '.join(TARGETS)}, got {name!r}")
    if is_x86() and not has_vnni() and TARGETS[name].largest_weight > TARGETS["x86"].largest_weight:
        raise QuantizationError(
            f"target {name}: this processor has neither {' nor '.join(VNNI)}, its int8 products would saturate, and no "
            "proof made here would hold. Use --target x86, which is right everywhere, or export on another machine."
        )
    return TARGETS[name]
