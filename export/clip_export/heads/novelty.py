"""How far an image is from those that a head learnt from.

Mahalanobis++ (Müller and Hein 2025, https://arxiv.org/abs/2505.18032): the distance to the nearest class mean, among
features of unit length, by one covariance for all classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from clip_toolkit.errors import DatasetError, HeadError
from clip_toolkit.spec.tasks import SINGLE_LABEL

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Novelty:
    """What training images look like, and from which distance on an image is unlike them.

    Attributes:
        centre: float32 ``[dim]``, subtracted from features of unit length.
        whitening: float32 ``[dim, dim]``; behind it the covariance within classes is the identity.
        means: float32 ``[classes, dim]``, of the classes, behind both.
        threshold: images beyond are unlike the training images.
        share: of the validation images that are beyond.
        images: how many validation images there were.
    """

    centre: Array
    whitening: Array
    means: Array
    threshold: float
    share: float
    images: int

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name."""
        return {name: getattr(self, name) for name in ("centre", "whitening", "means")}

    def distances(self, embedding: Array) -> NDArray[np.float64]:
        """Compute the distance ``[n]`` of features of unit length ``[n, dim]`` from the nearest mean."""
        placed = (embedding.astype(np.float64) - self.centre) @ self.whitening.astype(np.float64)
        squares = np.square(placed[:, None] - self.means).sum(-1)
        return np.asarray(np.sqrt(squares.min(1)))


@dataclass(frozen=True)
class NoveltyReference:
    """What a head file says of a `Novelty` beside its arrays."""

    threshold: float
    share: float
    images: int

    @classmethod
    def of(cls, novelty: Novelty) -> NoveltyReference:
        """Return that of a novelty."""
        return cls(novelty.threshold, novelty.share, novelty.images)

    def novelty(self, arrays: Mapping[str, Array]) -> Novelty:
        """Join it with the arrays.

        Raises:
            HeadError: they are missing, of other shapes, or not finite.
        """
        shapes = {name: array.shape for name, array in arrays.items()}
        (dim,) = shapes.get("centre", (0,))[:1]
        fits = shapes == {"centre": (dim,), "whitening": (dim, dim), "means": (*shapes.get("means", (0,))[:1], dim)}
        if not (fits and all(array.size and np.isfinite(array).all() for array in arrays.values())):
            raise HeadError(f"the statistics of the training images are damaged: {shapes}. Train the head again.")
        centre, whitening, means = (arrays[name].astype(np.float32) for name in ("centre", "whitening", "means"))
        return Novelty(centre, whitening, means, self.threshold, self.share, self.images)


def fit_novelty(train: Array, targets: Array, task: str, validation: Array, share: float) -> Novelty:
    """Learn what images look like, and set the threshold on others.

    The covariance is shrunk by the rule of Ledoit and Wolf (2004, doi:10.1016/S0047-259X(03)00096-4), so that it can be
    inverted with fewer images than the feature has dimensions.

    Args:
        train: features of unit length ``[n, dim]``.
        targets: as in `clip_toolkit.data.dataset.Dataset`; other tasks than single-label have one mean.
        task: one of `clip_toolkit.spec.tasks.TASKS`.
        validation: features of unit length of images that were not learnt from.
        share: of the validation images that may be beyond the threshold.

    Raises:
        DatasetError: there are too few validation images for the share, or the features never vary.
    """
    least = math.ceil(round(1 / share, 9)) - 1
    if len(validation) < least:
        raise DatasetError(
            f"--novelty {share:g}: needs at least {least} validation images, so that its threshold can leave out "
            f"{share:.0%} of further ones; there are {len(validation)}. Add images, or name a larger share."
        )
    exact = train.astype(np.float64)
    classes = targets if task == SINGLE_LABEL else np.zeros(len(exact), int)
    means = np.stack([exact[classes == index].mean(0) for index in np.unique(classes)])
    covariance, _ = ledoit_wolf(exact - means[np.unique(classes, return_inverse=True)[1]], assume_centered=True)
    spread, axes = np.linalg.eigh(covariance)
    if not spread[0] > 0:
        raise DatasetError("--novelty: the images of each label are all alike to the encoder: nothing to measure by.")
    centre = exact.mean(0)
    whitening = axes / np.sqrt(spread)
    centre, whitening, means = (part.astype(np.float32) for part in (centre, whitening, (means - centre) @ whitening))
    return _with_threshold(Novelty(centre, whitening, means, 0.0, share, len(validation)), validation)


def _with_threshold(found: Novelty, validation: Array) -> Novelty:
    """Set the threshold so that a further image like the ``n`` of validation is beyond it with the share at most.

    It is the distance of rank ``ceil((n + 1) (1 - share))`` (split-conformal: Vovk et al. 2005, section 2.2), and half
    way on to the next one, so that rounding cannot move that image across it.
    """
    distances = np.sort(found.distances(validation))
    rank = math.ceil(round((len(distances) + 1) * (1 - found.share), 9))
    threshold = float(np.append(distances, distances[-1] * 1.001)[rank - 1 : rank + 1].mean())
    return replace(found, threshold=threshold, share=float((distances > threshold).mean()))
