"""The report's figures, each a matplotlib figure that knows nothing of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, PredictionErrorDisplay, precision_recall_curve, roc_curve

from clip_export.training.judging.evaluation import Evaluation
from clip_export.training.loop import Training
from clip_toolkit.judging.scores import SCORES
from clip_toolkit.spec.tasks import SINGLE_LABEL

DPI = 110
BLUE, ORANGE, GREY = "#2463a8", "#d9731a", "#8a8f98"
# Okabe and Ito's colours, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color/).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a800")
_MOST_CURVES = 16  # labels beyond would be a tangle; those that are judged worst are shown
_MOST_NUMBERED = 20  # labels up to which a confusion matrix has room for its counts


def learning_curves(training: Training, task: str) -> Figure:
    """Loss and score of every epoch, and which epoch the head is of."""
    figure, (left, right) = _panels(2)
    numbers = [epoch.number for epoch in training.history]
    for axes, title, fields in (
        (left, "loss", ("loss", "val_loss")),
        (right, SCORES[task], ("train_score", "val_score")),
    ):
        for name, field, colour in zip(("training", "validation"), fields, (BLUE, ORANGE), strict=True):
            axes.plot(numbers, [getattr(epoch, field) for epoch in training.history], color=colour, label=name)
        axes.axvline(training.best.number, color=GREY, linestyle=":", label=f"head: epoch {training.best.number}")
        axes.set(xlabel="epoch", ylabel=title)
    left.set_ylim(bottom=0)
    right.legend(loc="lower right")
    return figure


def confusion_matrix(evaluation: Evaluation) -> Figure:
    """Draw the counts of true against predicted labels, shaded by the share of the true label."""
    counts = evaluation.confusion()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    many = len(counts)
    side = min(9.0, 2.6 + 0.5 * many)
    figure = Figure(figsize=(side + 0.9, side), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    display = ConfusionMatrixDisplay(shares, display_labels=[_short(label) for label in evaluation.labels])
    rotation = 45 if max(map(len, display.display_labels)) > 3 else 0
    display.plot(ax=axes, cmap="Blues", colorbar=False, include_values=many <= _MOST_NUMBERED, im_kw={"clim": (0, 1)})
    figure.colorbar(display.im_, ax=axes, fraction=0.046, label="share of the true class")
    axes.set_xticks(range(many), display.display_labels, rotation=rotation, ha="right" if many > 3 else "center")
    axes.set(xlabel="predicted", ylabel="true")
    for text, count in zip(np.ravel(display.text_) if many <= _MOST_NUMBERED else (), counts.ravel(), strict=False):
        text.set_text(str(count))
    return figure


def roc_and_pr(evaluation: Evaluation, thresholds: Mapping[str, float], shown: Sequence[int]) -> Figure:
    """ROC and precision-recall curves of the labels at indices ``shown``, with the operating points."""
    figure, (left, right) = _panels(2, height=4.6)
    true = evaluation.true
    drawn = _curves_worth_drawing(evaluation, shown)
    for colour, index in zip(COLOURS * 2, drawn, strict=False):
        scores, positive = evaluation.probabilities[:, index], true[:, index]
        style = {"color": colour, "linestyle": "-" if drawn.index(index) < len(COLOURS) else "--"}
        label = _short(evaluation.labels[index], 18)
        figures = evaluation.by_label[index].figures
        false_rate, true_rate, _ = roc_curve(positive, scores)
        left.plot(false_rate, true_rate, label=f"{label}: {figures['AUROC'].value:.3f}", **style)
        precision, recall, _ = precision_recall_curve(positive, scores)
        right.step(recall, precision, where="post", label=f"{label}: {figures['AUPRC'].value:.3f}", **style)
        if evaluation.labels[index] in thresholds:
            said = evaluation.predicted[:, index]
            _mark(left, (said & ~positive).sum() / (~positive).sum(), (said & positive).sum() / positive.sum(), colour)
            _mark(right, (said & positive).sum() / positive.sum(), positive[said].mean() if said.any() else 1.0, colour)
    if len(drawn) == 1:
        share = true[:, drawn[0]].mean()
        right.axhline(share, color=GREY, linestyle=":", label=f"guessing: {share:.3f}")
    left.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    left.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC")
    right.set(xlabel="recall", ylabel="precision", title="precision and recall")
    for axes, name, corner in ((left, "AUROC", "lower right"), (right, "AUPRC", "lower left")):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(title=name, loc=corner, fontsize=8, ncols=1 if len(drawn) <= 8 else 2)
    return figure


def reliability_diagram(evaluation: Evaluation, temperature: float) -> Figure:
    """Confidence against the share of right answers, before and after the temperature, and how many there are."""
    figure, panels = _panels(2, height=4.4)
    titles = ("before", f"after (temperature {temperature:.3f})")
    for axes, title, answers in zip(panels, titles, (evaluation.uncalibrated, evaluation.probabilities), strict=True):
        table, error = evaluation.reliability(answers)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
        axes.plot(table[:, 0], table[:, 1], color=BLUE, alpha=0.5)
        sizes = 25 + 250 * table[:, 2] / table[:, 2].sum()
        axes.scatter(table[:, 0], table[:, 1], s=sizes, color=BLUE, zorder=3)
        for confidence, share, count in table:
            axes.annotate(f"{count:.0f}", (confidence, share), (6, -11), textcoords="offset points", fontsize=7)
        single = evaluation.task == SINGLE_LABEL
        axes.set(xlim=(-0.02, 1.04), ylim=(-0.06, 1.06), title=f"{title}: ECE {error:.3f}")
        axes.set(xlabel="mean probability", ylabel="share that was right" if single else "share that has the label")
    return figure


def predicted_against_true(evaluation: Evaluation) -> Figure:
    """Each value of a regression, predicted against true."""
    figure, panels = _panels(len(evaluation.labels), height=4.4)
    for axes, index, label in zip(panels, range(len(panels)), evaluation.labels, strict=True):
        PredictionErrorDisplay(y_true=evaluation.targets[:, index], y_pred=evaluation.logits[:, index]).plot(
            ax=axes,
            kind="actual_vs_predicted",
            line_kwargs={"color": GREY, "linestyle": ":"},
            scatter_kwargs={"s": 14, "color": BLUE, "alpha": 0.6},
        )
        figures = evaluation.by_label[index].figures
        title = f"{_short(label)}: R squared {figures['R squared'].value:.3f}, MAE {figures['MAE'].value:.3g}"
        axes.set(xlabel="true", ylabel="predicted", title=title)
    return figure


def _curves_worth_drawing(evaluation: Evaluation, shown: Sequence[int]) -> list[int]:
    area = {index: evaluation.by_label[index].figures["AUROC"].value for index in shown}
    defined = [index for index in shown if np.isfinite(area[index])]
    return sorted(sorted(defined, key=area.__getitem__)[:_MOST_CURVES])


def _mark(axes: Axes, x: float, y: float, colour: str) -> None:
    axes.plot([x], [y], "o", color=colour, markeredgecolor="black", markersize=8, zorder=4)


def _panels(count: int, height: float = 3.8) -> tuple[Figure, Any]:
    figure = Figure(figsize=(max(5.4, 5.2 * count), height), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes in panels:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _short(text: str, length: int = 24) -> str:
    safe = text.replace("$", r"\$")  # matplotlib would read mathematics between two of them
    return safe if len(safe) <= length else safe[: length - 1] + "…"
