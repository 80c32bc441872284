"""The notebook's answers, held against the finished file by the shipped runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clip_export.encoders.image import Encoder
from clip_export.expect.answers import Answers, Rows, sums_to_one
from clip_export.expect.comparing import TOLERANCE, Comparison, compare
from clip_export.expect.diagnosis import ROWS, diagnose
from clip_export.expect.fitting import Setting
from clip_export.expect.variants import Heads, Subject
from clip_toolkit import Classifier
from clip_toolkit.errors import ExpectError, ImageError, ParityError
from clip_toolkit.spec.receipts import NotebookReceipt
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

_SHOWN = 5  # of changed decisions


@dataclass(frozen=True)
class Expected:
    """A notebook's answers and how far the file may be from them.

    Attributes:
        answers: as they were read, of the main head.
        tolerance: relative bound of a difference.
        further: of each further head, by name.
    """

    answers: Answers
    tolerance: float = TOLERANCE
    further: Mapping[str, Answers] = field(default_factory=dict)

    def of(self, head: str) -> Expected:
        """Return those of a further head alone, or of the main one under any other name."""
        return replace(self, answers=self.further.get(head, self.answers), further={})


def prove_answers(classifier: Classifier, expected: Expected, encoder: Encoder, heads: Heads) -> NotebookReceipt:
    """Hold a finished file against the notebook's answers.

    Args:
        classifier: the file, or one of its heads, on the CPU.
        expected: the notebook's answers.
        encoder: the encoder in it, for the diagnosis.
        heads: the head in it and others that its weights allow, as in `clip_export.expect.variants.Subject`.

    Raises:
        ExpectError: the answers are of another kind than the model's, or an image cannot be decoded.
        ParityError: the file answers otherwise; the message names the reason.
    """
    spec = classifier.spec
    answers = expected.answers.fitted_to(spec.labels)
    _check_kind(answers, spec.task)
    if answers.features is None:
        logits = file_logits(classifier, answers)
    else:  # which no file takes
        logits = _head_logits(answers.features, spec.encoder.dim, heads[()])
    setting = Setting(spec.task, spec.labels, spec.temperature, expected.tolerance)
    found = compare(answers, logits, *setting[:2], temperature=spec.temperature, tolerance=expected.tolerance)
    if not found.passed:
        rows = _rows_to_explain(found, len(answers))
        some = answers.taken(rows)
        subject = Subject(encoder, heads, some.images, some.features)
        raise ParityError(
            f"{_refusal(found, answers, setting)} {diagnose(some, subject, setting)} No file was written."
        )
    through = "features" if answers.features is not None else "images"
    tells_task = spec.task == REGRESSION or answers.tells_task
    return NotebookReceipt(
        len(answers), found.compared, through, found.difference, found.allowed, found.scale, tells_task
    )


def _check_kind(answers: Answers, task: str) -> None:
    if task == REGRESSION and answers.compared != "logits":
        raise ExpectError("the answers are probabilities or labels, but the model is a regression: save its logits.")
    if task == MULTI_LABEL and answers.compared == "labels":
        raise ExpectError(
            "a label for each image says too little of a multi-label model: save logits or probabilities."
        )


def file_logits(classifier: Classifier, answers: Answers) -> Rows:
    """Compute a file's own logits for the images of answers, from their bytes on.

    Raises:
        ExpectError: an image cannot be decoded.
    """
    try:
        rows = [found.logits for found in classifier.predict_many(answers.images) if not isinstance(found, ImageError)]
    except ImageError as error:
        raise ExpectError(f"an image of the notebook's answers: {error}") from error
    return np.stack(rows).astype(np.float64)


def _head_logits(features: NDArray[np.float32], width: int, head: nn.Module) -> Rows:
    if features.shape[1] != width:
        raise ExpectError(f"features: expected {width} columns, got {features.shape[1]}.")
    with torch.inference_mode():
        logits: torch.Tensor = head(torch.from_numpy(features))
        return logits.double().numpy()


def _rows_to_explain(found: Comparison, count: int) -> Sequence[int]:
    """Return the worst row, some of those decided otherwise, and others evenly from all."""
    even = np.linspace(0, count - 1, min(count, ROWS)).astype(int).tolist()
    return list(dict.fromkeys([found.worst, *found.changed[: ROWS // 3], *even]))[:ROWS]


def _refusal(found: Comparison, answers: Answers, setting: Setting) -> str:
    count = len(answers)
    if found.compared == "labels":
        text = f"the file decides otherwise than the notebook on {len(found.changed)} of {count} rows"
    else:
        text = (
            f"the file's {found.compared} differ from the notebook's by up to {found.difference:.3g}, more than "
            f"{found.allowed:.2g}, and {len(found.changed)} of {count} decisions differ"
        )
    shown = "; ".join(row_name(answers, row) for row in found.changed[:_SHOWN] or (found.worst,))
    unusual = ""
    chances = answers.probabilities
    if setting.task == SINGLE_LABEL and chances is not None and not sums_to_one(chances):
        row = int(np.abs(chances.sum(axis=1) - 1).argmax())
        unusual = f" The notebook's probabilities do not sum to 1 (row {row}: {chances[row].sum():.3g})."
    return f"expect: {text} ({shown}).{unusual}"


def row_name(answers: Answers, row: int) -> str:
    """Name a row for people: by its image's file, if it has one."""
    image = answers.images[row] if answers.images else b""
    return Path(image).name if isinstance(image, str) else f"row {row}"
