"""Evaluations and comparisons as lines of text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clip_eval.comparing import Comparison, Flip
from clip_eval.evaluation import Evaluation
from clip_eval.running import Run
from clip_toolkit.judging.coverage import SetFigures
from clip_toolkit.judging.figures import Interval, figure_text
from clip_toolkit.judging.rates import rates_text
from clip_toolkit.judging.scores import SCORES
from clip_toolkit.listing import table
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

_MOST_LABELS = 20  # up to which a terminal has room for a confusion matrix

SIDES = ("first", "second")


class Judged(NamedTuple):
    """A model file and how good it is.

    Attributes:
        path: of the file.
        size: in bytes.
        milliseconds: an image in a batch, without decoding.
        evaluation: its figures.
    """

    path: Path
    size: int
    milliseconds: float
    evaluation: Evaluation

    @property
    def speed(self) -> str:
        """Speed and size in words."""
        return f"{self.milliseconds:.1f} ms an image without decoding, {self.size / 2**20:.1f} MiB"


def evaluation_lines(judged: Judged, run: Run, most: int) -> Iterator[str]:
    """Give an evaluation as lines, with up to ``most`` mistakes."""
    found, task = judged.evaluation, judged.evaluation.answers.task
    yield f"{SCORES[task]} {figure_text(found.score, task)}; {judged.speed}"
    yield from model_facts(found)
    yield from ("", "label by label (their 95% intervals: --json, --report):")
    yield from table(_label_rows(found))
    if task == SINGLE_LABEL and len(found.answers.labels) <= _MOST_LABELS:
        yield from ("", "confusion, rows true, columns predicted:")
        yield from table(_confusion_rows(found))
    if found.points:
        yield from ("", "operating points, chosen on these very images:")
        yield from table(_point_rows(found))
    if found.slices:
        yield ""
        yield from table(_slice_rows(found))
    if most and found.mistakes:
        yield from ("", mistakes_title(found, most))
        names = (("image", "predicted", "true"),)
        yield from table(
            [*names, *((run.dataset.relative(row), said, true) for row, said, true in found.mistakes[:most])]
        )


def model_facts(found: Evaluation) -> Iterator[str]:
    """Give what is to be said of a model beside its score and its tables."""
    yield from (f"{rates.label}: {rates_text(rates)}" for rates in found.rates)
    if found.calibration is not None:
        ece, brier, loss = found.calibration
        yield f"calibration: ECE {ece:.4f}, Brier {brier:.4f}, log loss {loss:.4f}"
    yield from (str(figures) for figures in (found.sets, found.novelty) if figures is not None)


def comparison_lines(judged: Sequence[Judged], comparison: Comparison, run: Run, most: int) -> Iterator[str]:
    """Give a comparison as lines, with up to ``most`` flips."""
    for side, each in zip(SIDES, judged, strict=True):
        found = each.evaluation
        yield f"{side}: {each.path}: {SCORES[found.answers.task]} {figure_text(found.score, found.answers.task)}"
        yield f"{'':<{len(side)}}  {each.speed}"
    first, second = judged
    yield f"speed: the second takes {second.milliseconds / first.milliseconds:.2f} of the first's time"
    yield from comparison_facts(comparison, run)
    if comparison.differences:
        yield ""
        yield from table(_difference_rows(comparison))
    if most and comparison.flips:
        yield from ("", flips_title(comparison, most))
        rows = [("image", "first", "second", "right")]
        rows += [(run.dataset.relative(flip.row), *flip_texts(flip), flip.right) for flip in comparison.flips[:most]]
        yield from table(rows)


def comparison_facts(comparison: Comparison, run: Run) -> Iterator[str]:
    """Give what is to be said of two models that decide; nothing of a regression."""
    if comparison.differences:
        return
    unit = "images with all labels right" if run.answers[0].task == MULTI_LABEL else "images right"
    yield f"agreement {figure_text(comparison.agreement)}"
    yield (
        f"{unit}: both {comparison.both}, the first alone {comparison.first}, the second alone {comparison.second}, "
        f"neither {comparison.neither}"
    )
    surely = "more than chance" if comparison.p < 0.05 else "no more than chance may give"
    yield f"McNemar's exact test: p = {comparison.p:.3g}, {surely} (at 5%)"
    if any(run.dataset.groups):
        yield "images of one group are not independent, and the test takes them to be: its p is too small"


def flip_texts(flip: Flip) -> tuple[str, str]:
    """Return what each model predicted, with the probabilities that both give it."""
    if flip.label == flip.other:
        first, second = flip.probabilities
        return f"{flip.label} {first:.1%}", f"{flip.label} {second:.1%}"
    one, two = flip.probabilities, flip.others
    return f"{flip.label} {one[0]:.1%} (second: {one[1]:.1%})", f"{flip.other} {two[1]:.1%} (first: {two[0]:.1%})"


def flips_title(comparison: Comparison, most: int) -> str:
    """Return the heading of the flips."""
    return f"flips: {_counted(len(comparison.flips), most)}, the most confident first"


def mistakes_title(found: Evaluation, most: int) -> str:
    """Return the heading of the mistakes."""
    if found.answers.task == REGRESSION:
        return f"largest errors, {min(most, len(found.mistakes))} of {len(found.mistakes)} images"
    return f"mistakes: {_counted(len(found.mistakes), most)}, the most confident first"


def _counted(count: int, most: int) -> str:
    return f"all {count}" if count <= most else f"{most} of {count}"


def _label_rows(found: Evaluation) -> Iterator[list[Any]]:
    yield ["", "images", *found.by_label[0].figures]
    for row in found.by_label:
        yield [row.label, row.support, *(_value(figure) for figure in row.figures.values())]


def _value(figure: Interval) -> str:
    return "-" if math.isnan(figure.value) else f"{figure.value:.3f}"


def _short(figure: Interval) -> str:
    return "-" if math.isnan(figure.value) else f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _confusion_rows(found: Evaluation) -> Iterator[list[Any]]:
    yield ["", *found.answers.labels]
    for label, counts in zip(found.answers.labels, found.answers.confusion().tolist(), strict=True):
        yield [label, *counts]


def _point_rows(found: Evaluation) -> Iterator[list[Any]]:
    yield ["label", "asked", "threshold", "sensitivity", "specificity", "precision"]
    for label, asked, threshold, *figures in found.points:
        yield [label, f"{asked:g}", f"{threshold:.6f}", *map(_short, figures)]


def _slice_rows(found: Evaluation) -> Iterator[list[Any]]:
    yield ["slice", "value", "images", SCORES[found.answers.task]]
    for column, value, images, score in found.slices:
        yield [column, value, images, figure_text(score, found.answers.task, interval="")]


def _difference_rows(comparison: Comparison) -> Iterator[list[Any]]:
    yield ["value", "between them", "MAE first", "MAE second", "second - first (95% interval)"]
    for label, between, first, second, change in comparison.differences:
        yield [label, *(f"{number:.4g}" for number in (between, first, second)), _short(change)]


def evaluation_record(judged: Judged, run: Run, most: int) -> dict[str, Any]:
    """Give an evaluation as JSON values, with up to ``most`` mistakes; what is not defined is null."""
    found, answers = judged.evaluation, judged.evaluation.answers
    record = {
        "model": str(judged.path),
        "bytes": judged.size,
        "milliseconds_per_image": judged.milliseconds,
        "images": len(run.dataset.files),
        "unreadable": list(run.errors),
        "task": answers.task,
        "score": {"name": SCORES[answers.task], **found.score._asdict()},
        "rates": [
            {"label": each.label, **{name: getattr(each, name)._asdict() for name in ("sensitivity", "specificity")}}
            for each in found.rates
        ],
        "calibration": found.calibration._asdict() if found.calibration else None,
        "sets": None if found.sets is None else _sets_record(found.sets),
        "novelty": None if found.novelty is None else _intervals(found.novelty._asdict()),
        "by_label": [
            {"label": row.label, "images": row.support}
            | {name: figure._asdict() for name, figure in row.figures.items()}
            for row in found.by_label
        ],
        "confusion": None,
        "operating_points": [_intervals(point._asdict()) for point in found.points],
        "slices": [_intervals(each._asdict()) for each in found.slices],
        "mistakes": [
            {"image": run.dataset.relative(row), "predicted": said, "true": true}
            for row, said, true in found.mistakes[:most]
        ],
    }
    if answers.task == SINGLE_LABEL:
        record["confusion"] = {"labels": list(answers.labels), "counts": answers.confusion().tolist()}
    return {name: defined(value) for name, value in record.items()}


def _sets_record(sets: SetFigures) -> dict[str, Any]:
    label, share = sets.worst
    return vars(sets) | {"coverage": sets.coverage._asdict(), "worst": {"label": label, **share._asdict()}}


def comparison_record(judged: Sequence[Judged], comparison: Comparison, run: Run, most: int) -> dict[str, Any]:
    """Give a comparison as JSON values, with up to ``most`` mistakes of each model and flips."""
    found = _intervals(vars(comparison)) | {
        "flips": [{"image": run.dataset.relative(flip.row)} | flip._asdict() for flip in comparison.flips[:most]],
        "differences": [_intervals(each._asdict()) for each in comparison.differences],
        "flipped": len(comparison.flips),
    }
    sides = {side: evaluation_record(each, run, most) for side, each in zip(SIDES, judged, strict=True)}
    return sides | {"comparison": defined(found)}


def _intervals(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value._asdict() if isinstance(value, Interval) else value for name, value in values.items()}


def defined(value: Any) -> Any:
    """Return JSON values without NaN, which JSON does not have, and without the numbers of rows."""
    if isinstance(value, dict):
        return {name: defined(item) for name, item in value.items() if name != "row"}
    if isinstance(value, (list, tuple)):
        return [defined(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
