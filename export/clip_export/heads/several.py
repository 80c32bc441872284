"""Several heads on one feature in one file: what they are called, and which weights are whose."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from clip_export.heads.checkpoints import Weights, agreed_labels
from clip_toolkit.errors import HeadError
from clip_toolkit.spec.contradictions import HEAD_NAME

Labels = Mapping[str, tuple[str, ...]]
"""Of each head, by its name."""

Tasks = Sequence[tuple[str, str]]
"""Name of a head, and its task."""

BY_HEAD = "--labels NAME=LABEL,LABEL NAME=LABEL,LABEL"


def named_labels(given: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    """Read ``NAME=LABEL,LABEL`` for each of several heads; nothing where labels are those of one."""
    pairs = [text.partition("=") for text in given or ()]
    found = {name: tuple(labels.split(",")) for name, _, labels in pairs if labels and HEAD_NAME.fullmatch(name)}
    return found if len(found) == len(pairs) > 1 else {}


def parts_of(weights: Weights) -> dict[str, Weights]:
    """Return the weights below each name that stands where names first part, as of an nn.ModuleDict's members."""
    while len({name.partition(".")[0] for name in weights}) == 1 and all("." in name for name in weights):
        weights = {name.partition(".")[2]: value for name, value in weights.items()}
    parts: dict[str, Weights] = {}
    for name, value in weights.items():
        part, _, own = name.partition(".")
        parts.setdefault(part, {})[own] = value
    return parts


def agreed_names(found: Labels, given: Labels, path: Path) -> Labels:
    """Return the labels of each head, in the order in which they were given.

    Raises:
        HeadError: those in the file are others.
    """
    for name, labels in given.items():
        agreed_labels(found.get(name), labels, path)
    return given or found


def check_one(labels: Labels, tasks: Tasks, path: Path) -> None:
    """Refuse what was said of several heads, of a file with one.

    Raises:
        HeadError: the labels or tasks name heads.
    """
    if tasks or any(len(own) > 1 for own in labels.values()):
        raise HeadError(
            f"{path}: holds one head, and --labels or --task name several: {', '.join(labels or dict(tasks))}"
        )


def check_names(heads: Collection[str], named: Labels, tasks: Tasks, path: Path) -> None:
    """Refuse heads whose labels are not known, and tasks of others.

    Raises:
        HeadError: the labels are of other heads, or of none; or a task is.
    """
    unknown = [name for name, _ in tasks if name not in heads]
    if unknown:
        raise HeadError(f"{path}: --task names {', '.join(unknown)}, but the heads are {', '.join(heads)}")
    if set(heads) != set(named):
        said = f"--labels name {', '.join(named)}" if named else "their labels are not known"
        raise HeadError(f"{path}: holds the heads {', '.join(heads)}, but {said}. Give {BY_HEAD}, the main head first.")
