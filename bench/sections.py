"""Sections of a Markdown page, of which each measurement writes its own."""

from __future__ import annotations

import re
from collections.abc import Sequence


def section(page: str, title: str) -> str:
    """Return the section under a heading of the second level, heading and all; empty if there is none."""
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def replaced_section(page: str, title: str, lines: Sequence[str]) -> str:
    """Return the page with another text under a heading, at its end if it was not there."""
    text = f"## {title}\n\n" + "\n".join(lines) + "\n"
    old = section(page, title)
    return page.replace(old, f"{text}\n").rstrip() + "\n" if old else f"{page.rstrip()}\n\n{text}"
