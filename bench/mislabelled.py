"""How many flipped labels are found: `bench/mislabelled.py FOLDER`, beside cleanlab where that is installed.

Of the images in a folder of label folders 5 % get another label, at random, five times. Precision and recall of the
list that clip-train --report shows, and of the same share of images from its top; likewise of cleanlab, which gets the
same probabilities. The features are tiny-clip's; the heads beside the shipped ones are logistic regressions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from clip_export.encoders.image import Encoder
from clip_export.features.images import image_features
from clip_export.training.judging.out_of_fold import out_of_fold
from clip_toolkit.data.image_folder import read_image_folder
from clip_toolkit.judging.mislabelled import find_mislabelled

ROOT = Path(__file__).parents[1]
SHARE, TIMES = 0.05, 5

Array = NDArray[np.float64]


def cleanlabs(probabilities: Array, targets: Array) -> list[int]:
    """Return the rows that cleanlab suspects, the surest first."""
    from cleanlab.filter import find_label_issues

    found = find_label_issues(targets, probabilities, return_indices_ranked_by="normalized_margin", n_jobs=1)
    return [int(row) for row in found]


def ours(probabilities: Array, targets: Array) -> list[int]:
    """Return the rows that we suspect."""
    return [suspect.row for suspect in find_mislabelled(probabilities, targets)]


def scored(rows: Sequence[int], flipped: Array) -> tuple[float, float]:
    """Return precision and recall of a list."""
    right = flipped[list(rows)].sum()
    return float(right / max(len(rows), 1)), float(right / flipped.sum())


def main() -> None:
    """Encode, flip, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    dataset = read_image_folder(parser.parse_args().folder)
    encoder = Encoder.from_pretrained(str(ROOT / "models" / "tiny-clip"))
    features = image_features(encoder, dataset.files, 32, "cpu", lambda *_: None).values.numpy()
    heads = {
        "shipped": lambda x, y: out_of_fold(x, y, [""] * len(y)),
        "logistic regression": lambda x, y: cross_val_predict(
            LogisticRegression(max_iter=1000), (x - x.mean(0)) / x.std(0), y, cv=5, method="predict_proba"
        ),
    }
    lists = {"ours": ours, "cleanlab": cleanlabs}
    print(f"| heads | rule | images listed | precision | recall | of the top {SHARE:.0%}: precision | recall |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, head in heads.items():
        rows = {rule: [] for rule in lists}
        for seed in range(TIMES):
            rng = np.random.default_rng(seed)
            flipped = np.zeros(len(features), bool)
            flipped[rng.choice(len(features), round(SHARE * len(features)), replace=False)] = True
            moved = rng.integers(1, len(dataset.labels), len(features))
            targets = np.where(flipped, (dataset.targets + moved) % len(dataset.labels), dataset.targets)
            probabilities = head(features, targets)
            for rule, find in lists.items():
                try:
                    found = find(probabilities, targets)
                except ImportError:
                    continue
                rows[rule].append([len(found), *scored(found, flipped), *scored(found[: flipped.sum()], flipped)])
        for rule, figures in rows.items():
            if figures:
                count, *shares = np.mean(figures, 0)
                print(
                    f"| {name} | {rule} | {count:.0f} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True
                )


if __name__ == "__main__":
    main()
