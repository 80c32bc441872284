"""What holds for all tests: none leaves this machine, signals arrive; and the last word, what was left out and why."""

from __future__ import annotations

import signal
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

LOOPBACK = {"localhost", "127.0.0.1", "::1", None, ""}


def pytest_configure() -> None:
    """Let processes that tests start be told to end or to reload, although nohup or a script's ``&`` ignores that."""
    for name in ("SIGHUP", "SIGINT"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _stays_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test whose code looks up another machine, even where it catches that there is none."""
    asked = []
    look_up = socket.getaddrinfo

    def guarded(host: str | bytes | None, *arguments: object, **options: object) -> object:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in LOOPBACK:
            asked.append(name)
            raise socket.gaierror(socket.EAI_NONAME, "tests reach no other machine")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", guarded)
    yield
    assert not asked, f"looked up {asked}"


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the reason of every skipped test once."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    if reasons:
        told = "; ".join(f"{count} ({reason.rstrip('.')})" for reason, count in reasons.most_common())
        terminalreporter.write_line(f"left out: {told}")
