"""The part of the report that shows images whose label is probably wrong, and the same as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clip_export.training.judging.out_of_fold import out_of_fold
from clip_export.training.preparation import Prepared
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.judging.mislabelled import Suspect, find_mislabelled
from clip_toolkit.judging.page import Section, Thumbnail, gallery

MISLABELLED = "mislabelled.csv"

_MOST = 60  # on the page; all of them are in the file
_NOTE = (
    "Linear heads that learnt from other images are surer of another label, by as much as they usually are of that "
    "label. Where such heads are often wrong, most are right as they are: look at each, from the first on, and correct "
    "your data before you trust any figure."
)


def find_suspects(prepared: Prepared) -> list[Suspect] | None:
    """Return the images of all sides whose label is probably wrong; None if some label has but one image or group.

    Args:
        prepared: of a single-label task; rows of the suspects are numbers of its files.
    """
    indices = np.concatenate([side.indices for side in prepared.sides])
    features = np.concatenate([side.examples.features.numpy() for side in prepared.sides])
    targets = prepared.dataset.targets[indices]
    groups = [prepared.dataset.groups[index] for index in indices]
    probabilities = out_of_fold(features, targets, groups)
    if probabilities is None:
        return None
    return [suspect._replace(row=int(indices[suspect.row])) for suspect in find_mislabelled(probabilities, targets)]


def mislabelled_section(suspects: list[Suspect], prepared: Prepared) -> Iterator[Section]:
    """Show the first of them."""
    if not suspects:
        return
    shown = suspects[:_MOST]
    which = f"All {len(shown)}" if len(shown) == len(suspects) else f"{len(shown)} of {len(suspects)}"
    thumbnails = (_thumbnail(prepared, suspect) for suspect in shown)
    note = f"{which}, the surest first; {MISLABELLED} has them all. {_NOTE}"
    yield Section("Probably mislabelled", note, html=gallery(thumbnails))


def write_suspects(path: Path, suspects: list[Suspect], prepared: Prepared) -> None:
    """Write a row for each: ``path``, ``label``, ``probably``, and the probabilities of the two labels.

    Raises:
        OutputError: the file cannot be written.
    """
    with (
        written_atomically(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "label", "probably", "p:label", "p:probably"])
        labels = prepared.dataset.labels
        for row, label, other, probabilities in suspects:
            rows.writerow([prepared.dataset.relative(row), labels[label], labels[other], *probabilities])


def _thumbnail(prepared: Prepared, suspect: Suspect) -> Thumbnail:
    dataset, (own, believed) = prepared.dataset, suspect.probabilities
    lines = [
        f"label: {dataset.labels[suspect.label]} {own:.0%}",
        f"probably {dataset.labels[suspect.other]} {believed:.0%}",
    ]
    return Thumbnail.of(dataset.files[suspect.row], dataset.relative(suspect.row), lines)
