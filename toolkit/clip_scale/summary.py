"""What a run has done, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from clip_toolkit.stream.records import Record

REMARKS = 3
"""Errors of a part that are told in words; the records have all."""


@dataclass
class Summary:
    """Counts of records.

    Attributes:
        images: number of records.
        errors: of those with an error.
        truncated: of those whose text was longer than the model reads.
        labels: how often each label was predicted.
        providers: how many images each execution provider ran.
        remarks: the first errors.
    """

    images: int = 0
    errors: int = 0
    truncated: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    providers: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self:
        """Count records."""
        found = cls()
        for item in records:
            found.images += 1
            if item["error"] is not None:
                found.errors += 1
                found.remarks = [*found.remarks, item["error"]][:REMARKS]
                continue
            found.truncated += item.get("text_truncated", False)
            found.labels.update(item["labels"] if "labels" in item else [item["label"]] if item["label"] else [])
            found.providers[item["provider"]] += 1
        return found

    def add(self, other: Summary) -> None:
        """Add the counts of another one, and leave its remarks."""
        self.images += other.images
        self.errors += other.errors
        self.truncated += other.truncated
        self.labels += other.labels
        self.providers += other.providers

    def to_json(self) -> dict[str, Any]:
        """Return the counts, most frequent label first."""
        counts = {name: value for name, value in vars(self).items() if name != "remarks"}
        return counts | {name: dict(counts[name].most_common()) for name in ("labels", "providers")}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Undo `to_json`."""
        return cls(**content | {name: Counter(content[name]) for name in ("labels", "providers")})
