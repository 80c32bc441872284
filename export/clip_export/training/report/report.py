"""``--report``: everything one should see of a head before trusting it, as PNG files and one HTML page."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten

import numpy as np
from matplotlib.figure import Figure

from clip_export.encoders.checkpoint import encoder_name
from clip_export.heads.files import TrainedHead
from clip_export.heads.outputs import SCORES
from clip_export.training.fusion import Parts
from clip_export.training.judging.baseline import baseline_score
from clip_export.training.judging.evaluation import Evaluation, evaluate
from clip_export.training.judging.figures import RESAMPLES
from clip_export.training.judging.mistakes import worst_mistakes
from clip_export.training.judging.thresholds import positive_index
from clip_export.training.loop import Training
from clip_export.training.preparation import Prepared
from clip_export.training.report import charts
from clip_export.training.report.page import Section, figures_table, render, shown
from clip_toolkit import open_image
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL

PAGE = "report.html"
_THUMBNAIL = 200  # pixels
_CAPTION = 32  # characters of a text below a thumbnail
_FEW = 100  # held-out images below which the page warns of its own intervals


def write_report(
    folder: Path,
    prepared: Prepared,
    training: Training,
    head: TrainedHead,
    positive: str | None = None,
    *,
    alone: Parts | None = None,
) -> Path:
    """Judge a head on the held-out images and write the report.

    Args:
        folder: where to write; files of earlier reports are replaced.
        prepared: the examples.
        training: how the head was trained.
        head: the head, with temperature and thresholds.
        positive: of two labels the one that is looked for; the last one if None.
        alone: of a head that reads texts, what image and text are worth by themselves.

    Returns:
        The page.

    Raises:
        OutputError: a file cannot be written.
    """
    name, indices, examples = prepared.held_out
    assert head.labels is not None
    evaluation = evaluate(
        head.module,
        examples,
        head.labels,
        task=head.task,
        temperature=head.temperature,
        thresholds=head.thresholds,
        groups=[prepared.dataset.groups[index] for index in indices],
    )
    sections = []
    for section, file, figure in _figures(evaluation, prepared, training, head, positive):
        png = _png(figure)
        _write(folder / f"{file}.png", png)
        sections.append(section._replace(png=png))
    by_label = figures_table(evaluation.by_label)
    sections.insert(
        1, Section("Label by label", _VALUE_NOTE if head.task == REGRESSION else _LABEL_NOTE, table=by_label)
    )
    score = f"{_score_name(head.task)} {shown(evaluation.score)}"
    facts = [*_operating(evaluation, positive), *_facts(prepared, training, head), *_parts(alone, head.task)]
    page = render("Training report", f"{score}, {name}", facts, list(_warnings(prepared, name)), sections)
    _write(folder / PAGE, page.encode())
    return folder / PAGE


_LABEL_NOTE = (
    "Small figures: 95 % intervals, Wilson's for precision and recall (where there are groups, each counts as one "
    f"image), otherwise of {RESAMPLES} bootstrap samples (of whole groups). Precision: of the images predicted to have "
    "the label, the share that does. Recall (sensitivity): of those that have it, the share that is found. AUROC and "
    "AUPRC do not depend on a threshold."
)
_VALUE_NOTE = f"Small figures: 95 % intervals of {RESAMPLES} bootstrap samples. MAE and RMSE in the units of the data."
_CURVES_NOTE = (
    "Training loss that keeps falling while validation loss rises is overfitting: train fewer epochs (--patience), "
    "use more dropout or weight decay, or more images. Both still falling at the end: raise the learning rate."
)
_MISTAKES_NOTE = (
    "Look at each: wrong labels in the data, bad images and shortcuts (a caption, a marker, a border) show here."
)
_VALIDATION_WARNING = (
    "These figures are from the validation images, which also chose the temperature, the threshold and, with "
    "--patience or --sweep, the head: they flatter it a little. Before you publish a figure, hold out a test set "
    "(--test-fraction)."
)


def _figures(
    evaluation: Evaluation, prepared: Prepared, training: Training, head: TrainedHead, positive: str | None
) -> Iterator[tuple[Section, str, Figure]]:
    yield Section("Learning curves", _CURVES_NOTE), "curves", charts.learning_curves(training, head.task)
    if evaluation.task == REGRESSION:
        note = "On the dotted line the prediction is right."
        yield Section("Predicted against true", note), "predicted", charts.predicted_against_true(evaluation)
    else:
        yield from _decision_figures(evaluation, head, positive)
    mistakes = worst_mistakes(evaluation)
    if mistakes:
        title = "Largest errors" if evaluation.task == REGRESSION else "Most confident mistakes"
        files = [prepared.dataset.files[prepared.held_out.indices[mistake.row]] for mistake in mistakes]
        captions = [
            f"{_text(prepared, mistake.row)}predicted {mistake.said}\ntrue: {mistake.true}" for mistake in mistakes
        ]
        escaped = [caption.replace("$", r"\$") for caption in captions]
        yield Section(title, _MISTAKES_NOTE), "mistakes", charts.gallery([_thumbnail(file) for file in files], escaped)


def _text(prepared: Prepared, row: int) -> str:
    """Return the beginning of a held-out example's text as a line of its own, if there are texts."""
    texts = prepared.dataset.texts
    return "" if texts is None else f"{shorten(texts[prepared.held_out.indices[row]], _CAPTION, placeholder='...')}\n"


def _decision_figures(
    evaluation: Evaluation, head: TrainedHead, positive: str | None
) -> Iterator[tuple[Section, str, Figure]]:
    if evaluation.task == SINGLE_LABEL:
        note = "Rows are true labels, columns predicted ones, with the head's threshold."
        yield Section("Confusion matrix", note), "confusion", charts.confusion_matrix(evaluation)
    binary = evaluation.task == SINGLE_LABEL and len(evaluation.labels) == 2
    named = next(iter(head.thresholds), positive)
    indices = [positive_index(evaluation.labels, named)] if binary else list(range(len(evaluation.labels)))
    note = "The dot is the operating point: what the exported model will do. It was chosen on validation images."
    if not head.thresholds:
        note = "No operating point was chosen: the most probable label is predicted (multi-label: each from 50 %)."
    yield Section("ROC and precision-recall", note), "roc-pr", charts.roc_and_pr(evaluation, head.thresholds, indices)
    before, after = evaluation.calibration_error
    note = (
        "Of answers given with 80 % probability 80 % should be right: dots on the dotted line. Numbers are images in a "
        f"bin. The expected calibration error (ECE) was {before:.3f} and is {after:.3f} with the temperature, which is "
        "fitted on validation images and exported with the head."
    )
    yield Section("Reliability", note), "reliability", charts.reliability_diagram(evaluation, head.temperature)


def _operating(evaluation: Evaluation, positive: str | None) -> Iterator[str]:
    """Of two labels, the figures that medicine knows: each is the recall of one of them."""
    if evaluation.task == SINGLE_LABEL and len(evaluation.labels) == 2:
        index = positive_index(evaluation.labels, positive)
        found, spared = (evaluation.by_label[i].figures["recall"] for i in (index, 1 - index))
        yield f"sensitivity for {evaluation.labels[index]} {shown(found)}"
        yield f"specificity {shown(spared)}"


def _facts(prepared: Prepared, training: Training, head: TrainedHead) -> Iterator[str]:
    yield from (f"{side}: {counts}" for side, counts in prepared.counts())
    plain = baseline_score(prepared.train, prepared.held_out.examples, head.task)
    model = "ridge regression" if head.task == REGRESSION else "logistic regression"
    if math.isnan(plain):
        yield f"no {model} to compare with: some label is on every training image, or on none"
    else:
        yield f"{_score_name(head.task)} of {model} on the same features and images: {plain:.3f}"
    yield f"{_score_name(head.task)} on the training images: {training.best.train_score:.3f}"
    if head.encoder is not None:
        yield f"encoder {encoder_name(head.encoder.id)}, {head.encoder.feature} feature; head {head.module.spec.layers}"
    yield from (f"{label} is predicted from a probability of {value:.4f}" for label, value in head.thresholds.items())


def _parts(alone: Parts | None, task: str) -> Iterator[str]:
    if alone is not None:
        yield (
            f"{_score_name(task)} of the same head on the image alone {alone.image:.3f}, on the text alone "
            f"{alone.text:.3f}, on both {alone.both:.3f} (most probable label, without a threshold)"
        )


def _warnings(prepared: Prepared, name: str) -> Iterator[str]:
    yield from prepared.notes
    if name == "validation":
        yield _VALIDATION_WARNING
    if len(prepared.held_out.indices) < _FEW:
        yield f"Only {len(prepared.held_out.indices)} images were held out: read the intervals, not the figures."


def _score_name(task: str) -> str:
    """Return what a line begins with."""
    return SCORES[task][0].upper() + SCORES[task][1:]


def _thumbnail(file: Path) -> np.ndarray:
    image = open_image(file)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return np.asarray(image)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    with written_atomically(path) as temporary:
        temporary.write_bytes(content)
