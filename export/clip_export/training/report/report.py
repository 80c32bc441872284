"""``--report``: everything one should see of a head before trusting it, as PNG files and one HTML page."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from clip_export.encoders.checkpoint import encoder_name
from clip_export.encoders.image import Encoder
from clip_export.heads.files import TrainedHead
from clip_export.training.fusion import Parts
from clip_export.training.judging.baseline import baseline_name
from clip_export.training.judging.evaluation import Evaluation, evaluate
from clip_export.training.judging.outcome import Judgement, brief_text
from clip_export.training.loop import Training
from clip_export.training.preparation import Prepared
from clip_export.training.report import charts
from clip_export.training.report.mislabelled import (
    MISLABELLED,
    find_suspects,
    mislabelled_section,
    write_suspects,
)
from clip_export.training.report.predictions import PREDICTIONS, write_predictions
from clip_export.training.report.wrong_images import mistakes_section
from clip_toolkit.files.atomic import written_atomically
from clip_toolkit.judging.figures import RESAMPLES, figure_text
from clip_toolkit.judging.page import Section, figures_table, render
from clip_toolkit.judging.scores import SCORES, share_text
from clip_toolkit.spec.tasks import REGRESSION, SINGLE_LABEL

PAGE = "report.html"
_FEW = 100  # held-out images below which the page warns of its own intervals


def write_report(
    folder: Path,
    prepared: Prepared,
    training: Training,
    head: TrainedHead,
    encoder: Encoder,
    *,
    judgement: Judgement,
    alone: Parts | None = None,
) -> tuple[Path, Path]:
    """Judge a head on the held-out images and write the report.

    Args:
        folder: where to write; files of earlier reports are replaced.
        prepared: the examples.
        training: how the head was trained.
        head: the head, with temperature and thresholds.
        encoder: the one whose features it has learnt from.
        judgement: its figures, and those of what it is compared with.
        alone: of a head that reads texts, what image and text are worth by themselves.

    Returns:
        The page, and the predictions of all images.

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
    for section, file, figure in _figures(evaluation, training, head, judgement):
        png = _png(figure)
        _write(folder / f"{file}.png", png)
        sections.append(section._replace(png=png))
    by_label = figures_table(evaluation.by_label)
    sections.insert(
        1, Section("Label by label", _VALUE_NOTE if head.task == REGRESSION else _LABEL_NOTE, html=by_label)
    )
    sections += mistakes_section(evaluation, prepared, head, encoder)
    suspects = find_suspects(prepared) if head.task == SINGLE_LABEL and prepared.has_images else None
    if suspects is not None:
        sections += mislabelled_section(suspects, prepared)
        write_suspects(folder / MISLABELLED, suspects, prepared)
    score = f"{_score_name(head.task)} {figure_text(judgement.held_out.score, head.task)}"
    facts = [*_operating(judgement), *_facts(prepared, head, judgement), *_parts(alone, head.task)]
    page = render("Training report", f"{score}, {name}", facts, list(_warnings(prepared, name)), sections)
    _write(folder / PAGE, page.encode())
    write_predictions(folder / PREDICTIONS, prepared, head)
    return folder / PAGE, folder / PREDICTIONS


_LABEL_NOTE = (
    "Small figures: 95 % intervals, Wilson's for precision and recall (where there are groups, each counts as one "
    f"image), otherwise of {RESAMPLES} bootstrap samples (of whole groups). Precision: of the images predicted to have "
    "the label, the share that does. Recall (sensitivity): of those that have it, the share that is found. AUROC and "
    "AUPRC do not depend on a threshold."
)
_VALUE_NOTE = f"Small figures: 95 % intervals of {RESAMPLES} bootstrap samples. MAE and RMSE in the units of the data."
_CURVES_NOTE = (
    "The head is of the epoch at the dotted line. Training loss that keeps falling while validation loss rises is "
    "overfitting: use more dropout or weight decay, or more images. Both still falling at the end: raise the learning "
    "rate, or train longer."
)
_PLAIN_NOTE = " The score of an epoch is that of the most probable labels: the threshold is chosen for the head alone."
_VALIDATION_WARNING = (
    "These figures are from the validation images, which also chose the epoch, the temperature, the threshold and, "
    "with --sweep, the options: they flatter the head a little. Before you publish a figure, hold out a test set "
    "(--test-fraction)."
)


def _figures(
    evaluation: Evaluation, training: Training, head: TrainedHead, judgement: Judgement
) -> Iterator[tuple[Section, str, Figure]]:
    note = f"{_CURVES_NOTE}{_PLAIN_NOTE}" if head.thresholds else _CURVES_NOTE
    yield Section("Learning curves", note), "curves", charts.learning_curves(training, head.task)
    if evaluation.task == REGRESSION:
        note = "On the dotted line the prediction is right."
        yield Section("Predicted against true", note), "predicted", charts.predicted_against_true(evaluation)
    else:
        yield from _decision_figures(evaluation, head, judgement)


def _decision_figures(
    evaluation: Evaluation, head: TrainedHead, judgement: Judgement
) -> Iterator[tuple[Section, str, Figure]]:
    if evaluation.task == SINGLE_LABEL:
        note = "Rows are true labels, columns predicted ones, with the head's threshold."
        yield Section("Confusion matrix", note), "confusion", charts.confusion_matrix(evaluation)
    binary = evaluation.task == SINGLE_LABEL and len(evaluation.labels) == 2
    shown = [rates.label for rates in judgement.held_out.rates] if binary else evaluation.labels
    indices = [evaluation.labels.index(label) for label in shown]
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


def _operating(judgement: Judgement) -> Iterator[str]:
    for label, sensitivity, specificity in judgement.held_out.rates:
        yield f"sensitivity for {label} {figure_text(sensitivity)}"
        yield f"specificity for {label} {figure_text(specificity)}"


def _facts(prepared: Prepared, head: TrainedHead, judgement: Judgement) -> Iterator[str]:
    yield from (f"{side}: {counts}" for side, counts in prepared.counts())
    baseline = baseline_name(head.task)
    if baseline not in judgement.others:
        yield f"no {baseline} to compare with: some label is on every training image, or on none"
    for name, outcome in judgement.others.items():
        chosen = ", its threshold chosen by the same rule" if head.thresholds else ""
        yield f"{_score_name(head.task)} of {name} on the same features{chosen}: {brief_text(outcome, head.task)}"
    yield f"{_score_name(head.task)} on the training images: {share_text(judgement.train_score, head.task)}"
    if head.encoder is not None:
        yield f"encoder {encoder_name(head.encoder.id)}, {head.encoder.feature} feature; head {head.module.spec.layers}"
    yield from (f"{label} is predicted from a probability of {value:.4f}" for label, value in head.thresholds.items())


def _parts(alone: Parts | None, task: str) -> Iterator[str]:
    if alone is not None:
        yield (
            f"{_score_name(task)} of heads trained alike on the image alone {share_text(alone.image, task)}, on the "
            f"text alone {share_text(alone.text, task)}, on both {share_text(alone.both, task)}"
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


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    with written_atomically(path) as temporary:
        temporary.write_bytes(content)
