"""One search from images to a head: accuracy, files, one choice, and one confirmation on what was held out."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_export.encoders.feature_names import POOLED
from clip_export.heads.files import TrainedHead
from clip_export.progress import bar as progress_bar
from clip_export.training.judging.outcome import Judgement
from clip_export.training.preparation import Bar
from clip_export.tuning.candidates import FLOAT32, Found
from clip_export.tuning.choice import Choice, choose
from clip_export.tuning.files import Files
from clip_export.tuning.heads import folds
from clip_export.tuning.options import Limits, TuningData
from clip_export.tuning.receipt import receipt_of, tuned_head
from clip_export.tuning.record import Record
from clip_export.tuning.search import Search
from clip_export.tuning.subject import Subject, read_encoders, read_subject
from clip_export.tuning.timing import TOO_SCATTERED, machine
from clip_toolkit.data.dataset import Dataset
from clip_toolkit.errors import EncoderError

RECORD = "tuning.json"
_AGAIN = f"On an idle machine, remove {RECORD} and search again; features stay cached."


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        head: of the chosen file, with the receipt of the choice in its training summary.
        choice: the file, and why.
        reference: the whole first encoder's pooled feature in float32.
        found: all files that were measured.
        scored: all features that were tried, with a linear head in float32.
        confirmed: the chosen head on the held-out images.
        compared: the reference's, likewise.
        machine: where the times were measured.
        notes: what the user should know, one line each.
    """

    head: TrainedHead
    choice: Choice
    reference: Found
    found: tuple[Found, ...]
    scored: tuple[Found, ...]
    confirmed: Judgement
    compared: Judgement
    machine: str
    notes: tuple[str, ...]


def tune(
    dataset: Dataset,
    encoders: Sequence[str],
    folder: Path,
    limits: Limits = Limits(),
    asked: TuningData = TuningData(),
    *,
    minutes: float = 10.0,
    cache: Path | None = None,
    bar: Bar = progress_bar,
    say: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """Search the fastest file that still decides right.

    Args:
        dataset: images with one or several labels each.
        encoders: hub ids or local folders; the first one's pooled feature is what the choice is compared with.
        folder: where results are kept, so that an interrupted search goes on.
        limits: what the file has to keep to.
        asked: how images are split.
        minutes: after which no further candidate is tried; encoding the images does not count.
        cache: folder for features, or None to keep none.
        bar: shows progress.
        say: told what was not tried, or not used.

    Raises:
        DatasetError: the images are too few, or cannot be split.
        EncoderError: an encoder cannot be loaded.
        TuningError: no candidate keeps to the limits.
    """
    subjects = _subjects(dataset, encoders, asked, cache, bar)
    first, here = subjects[0], machine()
    parts = folds(first.dataset, first.reading.contents, first.learnt, asked.seed)
    owner = hashlib.sha256("".join(subject.digest() for subject in subjects).encode()).hexdigest()
    record = Record(folder / RECORD, owner, here)
    for note in record.notes:
        say(note)
    with tempfile.TemporaryDirectory() as scratch:
        deadline = time.monotonic() + 60 * minutes
        search = Search(subjects, parts, record, Files(Path(scratch)), deadline, bar, say)
        scored = search.score()
        found = search.measure(scored, limits.max_latency)
        reference = next(
            item for item in found if (item.encoder, item.feature, item.precision) == (first.name, POOLED, FLOAT32)
        )
        choice = choose(found, limits, reference)
        head, prepared, confirmed = search.confirm(choice.found)
        *_, compared = search.confirm(reference)
    scatter = f"turns scatter by up to {search.scatter:.0%}"
    receipt = receipt_of(
        choice, reference, confirmed=confirmed, compared=compared, measured=len(found), machine=f"{here}, {scatter}"
    )
    finished = tuned_head(search.subject(choice.found), head, prepared, confirmed, receipt)
    notes = [*dict.fromkeys(note for subject in subjects for note in subject.notes)]
    if search.scatter > TOO_SCATTERED:
        notes.append(f"the times are of little worth ({scatter}): something else was running. {_AGAIN}")
    return Tuned(finished, choice, reference, tuple(found), tuple(scored), confirmed, compared, here, tuple(notes))


def _subjects(
    dataset: Dataset, encoders: Sequence[str], asked: TuningData, cache: Path | None, bar: Bar
) -> list[Subject]:
    used = list(read_encoders(encoders, asked.input_sizes))
    subjects = [read_subject(dataset, encoder, asked, cache, bar) for encoder in used]
    names = [subject.name for subject in subjects]
    for name in names:
        if names.count(name) > 1:
            raise EncoderError(f"encoders: {name} is named more than once. Give each a folder name of its own.")
    return subjects
