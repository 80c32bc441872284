"""What a network is fed with, example by example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Feeds:
    """Inputs of a network, by name, the image first; one row an example.

    Attributes:
        arrays: each ``[examples, ...]``.
    """

    arrays: Mapping[str, NDArray[np.generic]]

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.image)

    def __getitem__(self, rows: slice) -> Feeds:
        """Return some of the examples."""
        return Feeds({name: array[rows] for name, array in self.arrays.items()})

    @property
    def image(self) -> NDArray[np.generic]:
        """Pixels uint8 ``[examples, height, width, 3]``, or normalised ``pixel_values``."""
        return next(iter(self.arrays.values()))
