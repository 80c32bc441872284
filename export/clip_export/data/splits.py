"""Who is learnt from and who is held out.

Sides that the data set names are kept. The rest is split by seed so that each side gets its share of every label, and
what belongs together (a group, or files of the same content) stays on one side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from clip_toolkit.data.dataset import TEST, TRAIN, VALIDATION, Dataset, memberships
from clip_toolkit.errors import DatasetError
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL


class Split(NamedTuple):
    """Indices of files, sorted: to learn from, to choose by, and to judge by (which may be none)."""

    train: list[int]
    validation: list[int]
    test: list[int]


def split_dataset(
    dataset: Dataset, contents: Sequence[str], val_fraction: float = 0.2, test_fraction: float = 0.0, seed: int = 0
) -> Split:
    """Split a data set.

    Args:
        dataset: the data set, of readable files.
        contents: of each file, a hash of its content.
        val_fraction: share of the images that no side is named for, to hold out for validation, if none is named.
        test_fraction: likewise for the test.
        seed: decides which.

    Raises:
        DatasetError: a fraction is out of range, a side stays empty, a label cannot be learnt or cannot be judged, or
            a group is on two sides.
    """
    if not (0 < val_fraction < 1 and 0 <= test_fraction < 1 and val_fraction + test_fraction < 1):
        raise DatasetError(
            f"fractions: expected above 0 and together below 1, got {val_fraction} validation and {test_fraction} test"
        )
    sides = {TRAIN: 0.0, VALIDATION: val_fraction, TEST: test_fraction}
    wanted = {side: 0.0 if side in dataset.sides else share for side, share in sides.items()}
    wanted[TRAIN] = 1 - sum(wanted.values())
    free = [i for i, side in enumerate(dataset.sides) if side in ("", TRAIN)]
    chosen = list(dataset.sides)
    if wanted[TRAIN] < 1:
        counts = memberships(dataset)
        _check_two_of_each(dataset, counts[free])
        for unit, side in _assigned(linked_files(dataset, contents, free), counts, wanted, seed):
            for index in unit:
                chosen[index] = side
    split = Split(*([i for i, side in enumerate(chosen) if (side or TRAIN) == name] for name in sides))
    _check(dataset, split)
    return split


def few_shots(dataset: Dataset, train: Sequence[int], shots: int, seed: int) -> list[int]:
    """``shots`` of the training images of each label, or all where there are fewer; of a regression, ``shots``."""
    rng = np.random.default_rng(seed)
    counts = memberships(dataset)[list(train)]
    chosen: set[int] = set()
    for column in counts.T:
        members = np.flatnonzero(column)
        chosen.update(rng.permutation(members)[:shots].tolist())
    return sorted(train[position] for position in chosen)


def duplicate_notes(dataset: Dataset, split: Split, contents: Sequence[str]) -> Iterator[str]:
    """Describe copies among training and held-out files, and each pair that has different labels.

    Args:
        dataset: the readable files.
        split: their sides.
        contents: of each file, a hash of its content.
    """
    if dataset.texts is not None:  # the same picture with another text is another example
        contents = [f"{content} {text}" for content, text in zip(contents, dataset.texts, strict=True)]
    pairs = duplicates_across(split, contents)
    if pairs:
        first, second = (dataset.relative(index) for index in pairs[0])
        yield (
            f"{len(pairs)} held-out files equal training files byte for byte, such as {second} and {first}: the "
            "figures flatter the head. Remove them."
        )
    targets: dict[str, list[int]] = {}
    for index, content in enumerate(contents):
        targets.setdefault(content, []).append(index)
    for same in targets.values():
        other = next((i for i in same if (dataset.targets[i] != dataset.targets[same[0]]).any()), None)
        if other is not None:
            yield f"{dataset.relative(same[0])} and {dataset.relative(other)} are the same file with different labels"


def duplicates_across(split: Split, contents: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of a training file and a held-out one of the same content."""
    first = {contents[index]: index for index in reversed(split.train)}
    return [(first[contents[i]], i) for i in (*split.validation, *split.test) if contents[i] in first]


def linked_files(dataset: Dataset, contents: Sequence[str], free: Sequence[int]) -> list[list[int]]:
    """Return indices that belong together: the same group, or the same content, or a chain of such files.

    Args:
        dataset: the data set.
        contents: of each file, a hash of its content.
        free: indices of the files to look at.
    """
    first: dict[tuple[str, str], int] = {}
    links = [
        (position, first.setdefault(name, position))
        for position, index in enumerate(free)
        for name in (("content", contents[index]), ("group", dataset.groups[index]))
        if name[1]
    ]
    rows, columns = np.array(links, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(len(free), len(free)))
    _, numbers = connected_components(graph, directed=False)
    units: dict[int, list[int]] = defaultdict(list)
    for index, number in zip(free, numbers.tolist(), strict=True):
        units[number].append(index)
    return list(units.values())


def _assigned(
    units: list[list[int]], counts: NDArray[np.float64], wanted: dict[str, float], seed: int
) -> Iterable[tuple[list[int], str]]:
    """Give each unit, the large ones first, to the side that lacks most of its labels, in shares of what it is due."""
    sides = [side for side, share in wanted.items() if share > 0]
    totals = counts[[i for unit in units for i in unit]].sum(axis=0)
    due = np.maximum(np.outer([wanted[side] for side in sides], totals), 1e-9)
    due[1:] = np.maximum(np.rint(due[1:]), np.minimum(totals, 1))  # whole images, and one of each label at least
    due[0] = np.maximum(totals - due[1:].sum(axis=0), 1)
    have = np.zeros_like(due)
    order = np.random.default_rng(seed).permutation(len(units))
    for position in sorted(order, key=lambda i: -len(units[i])):
        weight = counts[units[position]].sum(axis=0)
        lack = ((due - have) / due) @ (weight if weight.any() else np.ones_like(weight))
        side = int(np.argmax(lack))
        have[side] += weight if weight.any() else 1 / len(totals)
        yield units[position], sides[side]


def _check_two_of_each(dataset: Dataset, counts: NDArray[np.float64]) -> None:
    if dataset.task == REGRESSION:
        return
    for name, readable in zip(dataset.labels, counts.sum(axis=0).astype(int), strict=True):
        if readable < 2:
            raise DatasetError(f"class {name}: expected at least 2 readable images, got {readable}. Add some.")


def _check(dataset: Dataset, split: Split) -> None:
    for name, side in zip(("training", "validation"), split, strict=False):
        if not side:
            grouped = (
                " The groups leave none for it; use smaller ones or another fraction." if any(dataset.groups) else ""
            )
            raise DatasetError(f"split: the {name} side is empty.{grouped}")
    if dataset.task == SINGLE_LABEL:
        absent = set(range(len(dataset.labels))) - set(dataset.targets[split.train].tolist())
        if absent:
            names = ", ".join(dataset.labels[index] for index in sorted(absent))
            raise DatasetError(f"split: no readable training image of class {names}. Add some, or use smaller groups.")
    seen = {dataset.groups[index]: index for index in split.train if dataset.groups[index]}
    for index in (*split.validation, *split.test):
        if dataset.groups[index] in seen:
            raise DatasetError(
                f"split: the group {dataset.groups[index]!r} is on both sides, as {dataset.relative(index)} and "
                f"{dataset.relative(seen[dataset.groups[index]])}. Its images must stay on one."
            )
