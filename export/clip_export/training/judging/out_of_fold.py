"""What linear heads say of images that they did not learn from, for all images of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

_FOLDS = 5


def out_of_fold(features: NDArray[Any], targets: NDArray[Any], groups: Sequence[str]) -> NDArray[np.float64] | None:
    """Return probabilities ``[n, labels]``, each row by a head that learnt from other folds.

    Heads are linear discriminants with a covariance that is shrunk (Ledoit and Wolf 2004): no rate and no number of
    epochs to choose, and a few wrong labels move them little.

    Args:
        features: ``[n, dim]``.
        targets: int64 ``[n]``.
        groups: of each row its group, all of which goes into one fold; empty where it has none.

    Returns:
        None if a label has fewer than two images (or groups).
    """
    names = [group or f"\0{row}" for row, group in enumerate(groups)]
    numbers = np.unique(names, return_inverse=True)[1]
    least = min(len(np.unique(numbers[targets == label])) for label in np.unique(targets))
    if least < 2:
        return None
    found = np.zeros((len(targets), int(targets.max()) + 1))
    grouped = any(groups)
    kind = StratifiedGroupKFold if grouped else StratifiedKFold  # the former is slow with a group an image
    folds = kind(min(_FOLDS, least), shuffle=True, random_state=0)
    for learnt, judged in folds.split(features, targets, numbers if grouped else None):
        head = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features[learnt], targets[learnt])
        found[np.ix_(judged, head.classes_)] = head.predict_proba(features[judged])
    return found
