"""What the model says of uploaded files: as HTML to look at, and as the rows of ``clip-infer``'s CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from clip_toolkit.classifier import Classifier
from clip_toolkit.errors import ImageError
from clip_toolkit.listing import Style
from clip_toolkit.prediction import Prediction
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION
from clip_toolkit.stream.records import lines, record

STYLE = """
.scores { list-style: none; margin: .5rem 0 0; padding: 0 }
.scores li { display: grid; grid-template-columns: minmax(6rem, 1fr) 3fr 4.5rem; gap: .75rem; align-items: center;
  padding: .15rem 0; overflow-wrap: anywhere }
.scores meter { width: 100%; height: 1.1rem }
.scores span:last-child { text-align: right; font-variant-numeric: tabular-nums }
.scores .predicted { font-weight: 600 }
.headline { font-size: 1.5rem; font-weight: 600; margin: 0; overflow-wrap: anywhere }
.problem { color: var(--error-text-color, #b91c1c); margin: .25rem 0; overflow-wrap: anywhere }
.toast-body { overflow-wrap: anywhere }
"""


class Answer(NamedTuple):
    """What the model says of a file."""

    file: Path
    result: Prediction | ImageError


def classify(classifier: Classifier, files: Sequence[str]) -> Iterator[Answer]:
    """Classify files; errors name them without their folder, which is this app's own.

    Raises:
        ModelError: ONNX Runtime fails.
    """
    for name, result in zip(files, classifier.predict_many(files, errors="return"), strict=True):
        file = Path(name)
        is_bad = isinstance(result, ImageError)
        yield Answer(file, ImageError(str(result).replace(name, file.name)) if is_bad else result)


def csv_lines(classifier: Classifier, answers: Sequence[Answer], top_k: int = 1) -> list[str]:
    """Return the lines of ``clip-infer --format csv`` for the same files, which are named without their folder."""
    records = [
        record(file.name, result, top_k, classifier.provider, classifier.spec, columns=True) for file, result in answers
    ]
    return list(lines(records, Style("csv")))


def headline(prediction: Prediction) -> str:
    """Return the decision in a few words."""
    if prediction.task == REGRESSION:
        return ", ".join(f"{name} {value:.5g}" for name, value in prediction.values.items())
    if prediction.task == MULTI_LABEL:
        return ", ".join(prediction.decisions) or "none of the labels"
    return f"{prediction.label} {prediction.probability:.1%}"


def answer_html(name: str, prediction: Prediction, top_k: int) -> str:
    """Return the name of the file, the decision, the most probable labels, and what to know of both."""
    said = prediction.decisions
    top = prediction.top(top_k)
    missing = [score for score in prediction.top(len(prediction.labels))[top_k:] if score.label in said]
    rows = "".join(
        f"<li{' class=predicted' if label in said else ''}><span>{escape(label)}</span>"
        f"<meter value={probability:.4f}></meter><span>{probability:.1%}</span></li>"
        for label, probability in (*top, *missing)
    )
    note = " ".join(filter(None, (_threshold_note(prediction), _set_note(prediction))))
    novel = ["Unlike the training images: the answer may mean nothing."] if prediction.is_novel else []
    return (
        f'<p>{escape(name)}</p><p class="headline">{escape(headline(prediction))}</p>{problems_html(novel)}'
        f'<p>{escape(note)}</p><ol class="scores">{rows}</ol>'
    )


def problems_html(problems: Sequence[str]) -> str:
    """Return a paragraph for each problem."""
    return "".join(f'<p class="problem">{escape(problem)}</p>' for problem in problems)


def _set_note(prediction: Prediction) -> str:
    if prediction.set is None or prediction.is_novel:  # a set promises nothing of images unlike those it was made by
        return ""
    return f"One of these should be right: {', '.join(prediction.set)}."


def _threshold_note(prediction: Prediction) -> str:
    thresholds = ", ".join(f"{label} from {value:.1%} on" for label, value in prediction.thresholds.items())
    if not thresholds or prediction.task == REGRESSION:
        return ""
    decided = prediction.task == MULTI_LABEL or prediction.label == prediction.top(1)[0].label
    remark = "" if decided else ": so this is not the most probable label"
    return f"The model's thresholds: {thresholds}{remark}."
