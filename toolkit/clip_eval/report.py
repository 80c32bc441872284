"""``--report``: an evaluation, or a comparison, as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from clip_eval.comparing import Comparison, Flip
from clip_eval.evaluation import Evaluation
from clip_eval.listing import SIDES, Judged, comparison_facts, flip_texts, flips_title, mistakes_title, model_facts
from clip_eval.plots import Line, plot
from clip_eval.running import Run
from clip_toolkit.explaining.mistakes import MAPS_NOTE, Relevance, mistake_thumbnail
from clip_toolkit.judging.curves import Curve
from clip_toolkit.judging.figures import Interval, figure_text
from clip_toolkit.judging.page import Section, Shaded, Thumbnail, figures_table, gallery, html_table, render, write_page
from clip_toolkit.judging.scores import SCORES
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL

_MOST_CURVES = 8  # more labels would be a tangle: those that are told apart worst are shown
_MOST_LABELS = 60  # whose confusion a page has room for
_FEW = 100  # images below which the page warns of its own intervals


def write_report(
    path: Path, judged: Sequence[Judged], run: Run, *, remark: str, most: int, comparison: Comparison | None = None
) -> None:
    """Write the page.

    Args:
        path: the file, which appears whole or not at all.
        judged: the model, or two.
        run: what they answered.
        remark: which images they are.
        most: mistakes, and flips, to show.
        comparison: of two models.

    Raises:
        OutputError: the file cannot be written.
    """
    first, task = judged[0].evaluation, run.answers[0].task
    sections = [] if comparison is None else list(_compared(comparison, run, most))
    for side, each, relevance in zip(SIDES, judged, run.relevance, strict=False):
        prefix = f"{side}, {each.path.name}: " if comparison is not None else ""
        found = [*_sections(each), *_mistakes(each.evaluation, run, relevance, most)]
        sections += [section._replace(title=f"{prefix}{section.title}") for section in found]
    scores = [figure_text(each.evaluation.score, task) for each in judged]
    facts = [f"{len(run.dataset.files)} images, {remark}"]
    facts += [f"{each.path.name}, {fact}" for each in judged for fact in (each.speed, *model_facts(each.evaluation))]
    facts += [] if comparison is None else comparison_facts(comparison, run)
    page = render(
        " and ".join(each.path.name for each in judged),
        f"{SCORES[task]} {' against '.join(scores)}",
        facts,
        list(_warnings(run, first)),
        sections,
    )
    write_page(path, page)


def _warnings(run: Run, found: Evaluation) -> Iterator[str]:
    if run.errors:
        yield f"{len(run.errors)} images could not be read and are left out; the first: {run.errors[0]}"
    if run.cut:
        yield f"{run.cut} texts are longer than the model reads: their ends were not read"
    if len(found.answers.targets) < _FEW:
        yield f"Only {len(found.answers.targets)} images: read the intervals, not the figures."


def _sections(judged: Judged) -> Iterator[Section]:
    found = judged.evaluation
    task, labels = found.answers.task, found.answers.labels
    yield Section("Label by label", "Small figures: 95 % intervals.", html=figures_table(found.by_label))
    if task == SINGLE_LABEL and len(labels) <= _MOST_LABELS:
        yield Section("Confusion", "Rows are true labels, columns predicted ones.", html=_confusion(found))
    if task != REGRESSION:
        note = "The labels that are told apart worst." if len(labels) > _MOST_CURVES else ""
        yield Section("ROC and precision-recall", note, html=_curves(found))
        note = "Of answers given with 80 % probability 80 % should be right: dots on the dotted line."
        yield Section("Reliability", note, html=_reliability(found))
    if found.points:
        note = "Each threshold was chosen on these very images, and flatters itself a little."
        yield Section("Operating points", note, html=_points(found))
    if found.slices:
        yield Section("Slices", "The worst of each column first.", html=_slices(found))


def _mistakes(found: Evaluation, run: Run, relevance: Relevance | None, most: int) -> Iterator[Section]:
    if most and found.mistakes:
        shown = (
            mistake_thumbnail(mistake, found.answers, run.dataset, mistake.row, relevance)
            for mistake in found.mistakes[:most]
        )
        title = mistakes_title(found, most)
        yield Section("Mistakes", title if relevance is None else f"{title}. {MAPS_NOTE}", html=gallery(shown))


def _compared(comparison: Comparison, run: Run, most: int) -> Iterator[Section]:
    if comparison.differences:
        rows: list[list[str | Interval]] = [
            [each.label, f"{each.between:.4g}", f"{each.first:.4g}", f"{each.second:.4g}", each.change]
            for each in comparison.differences
        ]
        heads = ["", "between the two", "MAE of the first", "MAE of the second", "second - first"]
        note = "Mean absolute differences. Small figures: the 95 % interval of paired bootstrap samples."
        yield Section("Differences", note, html=html_table(heads, rows))
    if most and comparison.flips:
        shown = gallery(_flip(flip, run) for flip in comparison.flips[:most])
        yield Section("Flips", flips_title(comparison, most), html=shown)


def _flip(flip: Flip, run: Run) -> Thumbnail:
    said = (f"{side}: {text}" for side, text in zip(SIDES, flip_texts(flip), strict=True))
    return Thumbnail.of(run.dataset.files[flip.row], run.dataset.relative(flip.row), [*said, f"right: {flip.right}"])


def _confusion(found: Evaluation) -> str:
    counts = found.answers.confusion()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    rows = zip(found.answers.labels, counts.tolist(), shares.tolist(), strict=True)
    return html_table(
        ["", *found.answers.labels],
        ([label, *(Shaded(*pair) for pair in zip(*cells, strict=True))] for label, *cells in rows),
    )


def _curves(found: Evaluation) -> str:
    answers = found.answers
    area = {row.label: row.figures["AUROC"].value for row in found.by_label}
    binary = [rates.label for rates in found.rates] if answers.task == SINGLE_LABEL and found.rates else answers.labels
    shown = sorted((label for label in binary if np.isfinite(area[label])), key=area.__getitem__)[:_MOST_CURVES]
    roc, precision = [], []
    for label in shown:
        index = answers.labels.index(label)
        curve = Curve.of(answers.true[:, index], answers.probabilities[:, index].astype(np.float64))
        figures = found.by_label[index].figures
        name = f"{label}: {figures['AUROC'].value:.3f}"
        roc.append(Line(name, np.append(0, curve.false_share), np.append(0, curve.sensitivity)))
        name = f"{label}: {figures['AUPRC'].value:.3f}"
        precision.append(Line(name, curve.sensitivity, curve.precision))
    return plot("ROC (area)", "1 - specificity", "sensitivity", roc, diagonal=True) + plot(
        "precision and recall (area)", "recall", "precision", precision
    )


def _reliability(found: Evaluation) -> str:
    table, error = found.answers.reliability()
    share = "share that was right" if found.answers.task == SINGLE_LABEL else "share that has the label"
    line = Line("", table[:, 0], table[:, 1], dots=True)
    return plot(f"ECE {error:.4f}", "mean probability", share, [line], diagonal=True)


def _points(found: Evaluation) -> str:
    heads = ["", "sensitivity asked", "threshold", "sensitivity", "specificity", "precision"]
    return html_table(
        heads,
        [[label, f"{asked:g}", f"{threshold:.6f}", *figures] for label, asked, threshold, *figures in found.points],
    )


def _slices(found: Evaluation) -> str:
    heads = ["", "value", "images", SCORES[found.answers.task]]
    return html_table(heads, [[column, value, str(images), score] for column, value, images, score in found.slices])
