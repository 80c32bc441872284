"""Progress where nobody watches: a line now and then."""

import pytest

from clip_export import progress


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]):
    times = iter([0, 20, 31, 31, 40, 62, 62])  # at the start, at each step, and at each line
    with progress.bar("training", 5, clock=lambda: next(times)) as advance:
        for number in range(1, 5):
            advance(1, f"loss {number}")
    told = [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()]
    assert told == ["training: 2 of 5, loss 2", "training: 4 of 5, loss 4"]
