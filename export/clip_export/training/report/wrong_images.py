"""The part of the report that shows what the head is wrong about."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import shorten

from clip_export.training.judging.evaluation import Evaluation
from clip_export.training.preparation import Prepared
from clip_export.training.report.predictions import PREDICTIONS
from clip_toolkit.judging.mistakes import Mistake, mistakes
from clip_toolkit.judging.page import Section, Thumbnail, gallery
from clip_toolkit.spec.tasks import REGRESSION

_CAPTION = 60  # characters of a text below a thumbnail
_MOST = 120  # on the page, which would be slow to open with thousands
_NOTE = "Look at each: wrong labels in the data, bad images and shortcuts (a caption, a marker, a border) show here."


def mistakes_section(evaluation: Evaluation, prepared: Prepared) -> Iterator[Section]:
    """Show the held-out images that were decided wrongly, each with its file's name; say how many are left out."""
    found = mistakes(evaluation)
    shown, count = found[:_MOST], len(found)
    if not found:
        return
    title = "Largest errors" if evaluation.task == REGRESSION else "Mistakes"
    which = f"All {count}" if len(shown) == count else f"{len(shown)} of {count}, the others are in {PREDICTIONS}"
    order = "the largest first" if evaluation.task == REGRESSION else "the most confident first"
    note = f"{which}; {order}. {_NOTE}"
    yield Section(title, note, html=gallery(_thumbnail(prepared, mistake) for mistake in shown))


def _thumbnail(prepared: Prepared, mistake: Mistake) -> Thumbnail:
    index, dataset = prepared.held_out.indices[mistake.row], prepared.dataset
    text = [] if dataset.texts is None else [shorten(dataset.texts[index], _CAPTION, placeholder="...")]
    lines = [*text, f"predicted {mistake.said}", f"true: {mistake.true}"]
    return Thumbnail.of(dataset.files[index], dataset.relative(index), lines)
