"""What a search finds, and whether it is still there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clip_search.store.database import Database
from clip_toolkit.files.stamp import is_unchanged

PRESENT, CHANGED, MISSING = "present", "changed", "missing"


@dataclass(frozen=True)
class Hit:
    """An image that was found.

    Attributes:
        path: full path.
        score: cosine similarity with the query, at most 1; float16 keeps it to within 2**-11.
        state: ``present``, or ``changed`` or ``missing`` since it was indexed.
    """

    path: Path
    score: float
    state: str


def hits(database: Database, root: Path, found: Iterable[tuple[str, float]]) -> list[Hit]:
    """Make a hit of each path (relative to the indexed folder) and score."""
    return [Hit(root / path, min(score, 1.0), _state(database, root, path)) for path, score in found]


def _state(database: Database, root: Path, path: str) -> str:
    row = database.file(path)
    unchanged = is_unchanged(root / path, row.stamp, row.digest) if row else None
    if unchanged is None:
        return MISSING
    return PRESENT if unchanged else CHANGED
