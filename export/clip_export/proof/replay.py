"""The last check of a file before it appears: its golden vectors, replayed by the runtime."""

from __future__ import annotations

from collections.abc import Iterable

from clip_toolkit.errors import ParityError
from clip_toolkit.selftest import Drift


def check_replay(drifts: Iterable[Drift]) -> None:
    """Refuse a file whose selftest fails.

    Raises:
        ParityError: a drift is out of tolerance; the message names it.
    """
    for drift in drifts:
        if not drift.passed:
            resize = "" if drift.path == "text" else f" with the {drift.path} resize"
            raise ParityError(
                f"selftest{resize}: {drift.output} drift by {drift.drift:.3g}, more than {drift.tolerance:.3g}. "
                "No file was written."
            )
