"""What the doctor found, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what was looked at.
        status: ``fine``, ``note`` (works, could be better) or ``wrong``.
        detail: what was found.
        fix: the command or step that mends it; empty where nothing is to be mended.
    """

    subject: str
    status: str
    detail: str
    fix: str = ""


def report(findings: Sequence[Finding]) -> list[str]:
    """Lay findings out as lines for people, with each fix below its finding."""
    width = max(len(item.subject) for item in findings)
    rows = []
    for item in findings:
        rows.append(f"{item.status:<6}{item.subject:<{width + 2}}{item.detail}")
        if item.fix:
            rows.append(f"{'':<{width + 8}}fix: {item.fix}")
    return rows
