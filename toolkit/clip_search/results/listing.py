"""What was found, as records and their lines of text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from clip_search.results.duplicates import Duplicate
from clip_search.results.hits import Hit
from clip_search.results.labelling import Unsure
from clip_toolkit.listing import Style

Record: TypeAlias = dict[str, Any]
"""A flat record; all of a list have the same keys."""

HIT_KEYS = ("rank", "image", "score", "state")
NEXT_KEYS = ("rank", "image", "label", "margin")
DUPLICATE_KEYS = ("group", "image", "score", "kind")


def hit_records(hits: Iterable[Hit]) -> list[Record]:
    """Make a record of each hit, with `HIT_KEYS`."""
    return [
        dict(zip(HIT_KEYS, (rank, shown(hit.path), hit.score, hit.state), strict=True))
        for rank, hit in enumerate(hits, 1)
    ]


def next_records(found: Iterable[Unsure]) -> list[Record]:
    """Make a record of each image to label, with `NEXT_KEYS`."""
    return [
        dict(zip(NEXT_KEYS, (rank, shown(item.path), item.label, item.margin), strict=True))
        for rank, item in enumerate(found, 1)
    ]


def duplicate_records(groups: Iterable[Iterable[Duplicate]]) -> list[Record]:
    """Make a record of each member of each group, with `DUPLICATE_KEYS`."""
    return [
        dict(zip(DUPLICATE_KEYS, (number, shown(item.path), item.score, item.kind), strict=True))
        for number, group in enumerate(groups, 1)
        for item in group
    ]


def shown(path: Path) -> str:
    """Format a path as the user would type it: relative where it is below the working folder."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here) if path.is_relative_to(here) else path)


def lines(records: Sequence[Record], keys: Sequence[str], style: Style) -> Iterator[str]:
    """Give lines of text for records that all have these keys, the columns of CSV and table."""

    def flat(records: Iterable[Record]) -> Iterator[list[Any]]:
        return chain([[*keys]], ([*item.values()] for item in records))

    def grid(records: Iterable[Record]) -> Iterator[list[Any]]:
        return ([_shown_cell(cell) for cell in row] for row in (flat(records) if records else ()))

    return style.lines(records, flat, grid)


def _shown_cell(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else value
