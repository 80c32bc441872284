"""Which file is chosen, by hand-made measurements."""

from pathlib import Path

import pytest

from clip_export.tuning.candidates import Found
from clip_export.tuning.choice import choose, front, knee
from clip_export.tuning.options import Limits
from clip_export.tuning.record import Record
from clip_toolkit.errors import TuningError
from clip_toolkit.judging.figures import Interval


def found(name: str, accuracy: float, milliseconds: float, megabytes: float = 1.0) -> Found:
    interval = Interval(accuracy, accuracy - 0.02, accuracy + 0.02)
    return Found("e", name, "float32", "linear", interval, milliseconds / 1e3, int(megabytes * 1e6))


FILES = [
    found("mean@1", 0.70, 1, 2),
    found("mean@2", 0.79, 2, 4),
    found("class@2", 0.65, 2.1, 4),
    found("mean@3", 0.80, 4, 6),
    found("pooled", 0.69, 5, 8),
]


def test_the_front_is_what_nothing_beats():
    assert [item.feature for item in front(FILES)] == ["mean@1", "mean@2", "mean@3"]
    tied = [found("mean@1", 0.7, 2), found("mean@2", 0.7, 1)]
    assert [item.feature for item in front(tied)] == ["mean@2"]


@pytest.mark.parametrize(
    ("limits", "chosen", "why"),
    [
        (Limits(), "mean@2", "the knee"),
        (Limits(max_latency=0.0041), "mean@3", "most accurate"),
        (Limits(max_latency=0.0021), "mean@2", "most accurate"),
        (Limits(max_size=2.5e6), "mean@1", "most accurate"),
        (Limits(max_drop=0.5), "mean@3", "within 0.5 points"),
        (Limits(max_drop=1), "mean@2", "within 1 points"),
        (Limits(max_drop=20, max_latency=0.0021), "mean@1", "within 20 points"),
        (Limits(no_worse=True), "mean@1", "the fastest no worse than the whole encoder"),
        (Limits(no_worse=True, max_drop=1), "mean@2", "within 1 points of the best and no worse than"),
    ],
)
def test_limits(limits: Limits, chosen: str, why: str):
    choice = choose(FILES, limits, FILES[-1])
    assert choice.found.feature == chosen
    assert why in choice.why


def test_a_knee_that_costs_too_much_is_not_chosen_unasked():
    files = [
        found("class@1", 0.40, 1),
        found("class+mean@2", 0.82, 1.2),
        found("mean@3", 0.98, 2),
        found("pooled", 1, 4),
    ]
    assert knee(files).feature == "class+mean@2"
    assert choose(files, Limits(), files[-1]).found.feature == "pooled"
    near = [*files, found("mean@4", 0.995, 2.1)]
    assert choose(near, Limits(), files[-1]).found.feature == "mean@4"


def test_where_nothing_is_above_the_line_the_knee_is_the_most_accurate():
    assert knee(FILES[:2]).feature == "mean@2"
    assert knee([found("mean@1", 0.72, 1), found("mean@2", 0.725, 3), found("mean@3", 0.81, 4)]).feature == "mean@3"


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(max_latency=0.0005), r"at most 0\.5 ms here; the nearest is e mean@1 float32 with 1 ms"),
        (Limits(max_size=1e6), r"at most 1 MB; the nearest is e mean@1 float32 with 2 MB"),
        (Limits(max_latency=0.0005, max_size=1e6), "--max-latency"),
    ],
)
def test_limits_that_no_candidate_keeps_name_the_nearest(limits: Limits, said: str):
    with pytest.raises(TuningError, match=said):
        choose(FILES, limits, FILES[-1])


def test_where_all_that_is_allowed_is_worse_the_nearest_is_named():
    with pytest.raises(TuningError, match=r"reaches the 90\.0% of e pooled float32; the nearest is e mean@2 .* 79\.0%"):
        choose(FILES, Limits(no_worse=True, max_latency=0.0021), found("pooled", 0.9, 5))


def test_a_record_goes_on_where_it_may(tmp_path: Path):
    path = tmp_path / "tuning.json"
    first = Record(path, "images", "here")
    first.put("accuracy", "a", (0.5, 0.4, 0.6))
    first.put("times", "a", (1.0, 2.0, 3))
    again = Record(path, "images", "here")
    assert (again.get("accuracy", "a"), again.get("times", "a"), again.notes) == ([0.5, 0.4, 0.6], [1.0, 2.0, 3], [])
    elsewhere = Record(path, "images", "there")
    assert (elsewhere.get("accuracy", "a"), elsewhere.get("times", "a")) == ([0.5, 0.4, 0.6], None)
    assert "times are of another machine (here)" in elsewhere.notes[0]
    other = Record(path, "others", "here")
    assert (other.get("accuracy", "a"), len(other.notes)) == (None, 1)
    path.write_text('{"owner": 3')
    assert "is damaged" in Record(path, "images", "here").notes[0]
