"""The last word of a test run: what was left out, and how to get it."""

from __future__ import annotations

from collections import Counter

import pytest


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the reason of every skipped test once."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    if reasons:
        told = "; ".join(f"{count} ({reason.rstrip('.')})" for reason, count in reasons.most_common())
        terminalreporter.write_line(f"left out: {told}")
