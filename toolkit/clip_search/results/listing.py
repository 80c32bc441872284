"""What was found, as a table, JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from clip_search.results.duplicates import Duplicate
from clip_search.results.hits import Hit
from clip_toolkit.terminal import printable

Record: TypeAlias = dict[str, Any]
"""A flat record; all of a list have the same keys."""

HIT_KEYS = ("rank", "image", "score", "state")
DUPLICATE_KEYS = ("group", "image", "score", "kind")


def hit_records(hits: Iterable[Hit]) -> list[Record]:
    """A record for each hit, with `HIT_KEYS`."""
    return [
        dict(zip(HIT_KEYS, (rank, shown(hit.path), hit.score, hit.state), strict=True))
        for rank, hit in enumerate(hits, 1)
    ]


def duplicate_records(groups: Iterable[Iterable[Duplicate]]) -> list[Record]:
    """A record for each member of each group, with `DUPLICATE_KEYS`."""
    return [
        dict(zip(DUPLICATE_KEYS, (number, shown(item.path), item.score, item.kind), strict=True))
        for number, group in enumerate(groups, 1)
        for item in group
    ]


def shown(path: Path) -> str:
    """A path as the user would type it: relative where it is below the working folder."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here) if path.is_relative_to(here) else path)


def listing(records: Sequence[Record], keys: Sequence[str], form: str, *, ascii_only: bool = False) -> Iterator[str]:
    """Lines of text.

    Args:
        records: all with these keys.
        keys: the columns of ``csv`` and ``table``.
        form: ``table``, ``json``, ``jsonl`` or ``csv``.
        ascii_only: keep JSON to ASCII, for an output of another encoding than UTF-8, in which JSON would be none.
    """
    if form == "json":
        return iter([json.dumps(records, ensure_ascii=ascii_only, indent=2)])
    if form == "jsonl":
        return (json.dumps(item, ensure_ascii=ascii_only) for item in records)
    if form == "csv":
        return (_csv_line(cells) for cells in ([*keys], *(item.values() for item in records)))
    return _table(records, keys) if records else iter(())


def _csv_line(cells: Iterable[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(cells)
    return buffer.getvalue()


def _table(records: Sequence[Record], keys: Sequence[str]) -> Iterator[str]:
    rows = [list(keys), *([_cell(item[key]) for key in keys] for item in records)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else printable(str(value))
