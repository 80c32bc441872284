"""The notebook's answers, held against a quantized file: its decisions, for its numbers are meant to differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clip_export.expect.answers import Answers, Rows
from clip_export.expect.comparing import Comparison, compare
from clip_export.expect.proving import Expected, file_logits, row_name
from clip_toolkit import Classifier
from clip_toolkit.errors import QuantizationError
from clip_toolkit.judging.scores import r_squared
from clip_toolkit.spec.receipts import NotebookReceipt, agreement_text
from clip_toolkit.spec.tasks import REGRESSION

_SHOWN = 5  # of changed decisions


@dataclass(frozen=True)
class QuantizedAnswers:
    """How a quantized file decides on the notebook's images.

    Attributes:
        receipt: the notebook's, with the agreement.
        changed: names of the images that are decided otherwise.
    """

    receipt: NotebookReceipt
    changed: tuple[str, ...] = ()


def check_quantized(
    classifier: Classifier, expected: Expected, receipt: NotebookReceipt, min_agreement: float
) -> QuantizedAnswers:
    """Compare a quantized file's decisions with the notebook's; features, which no file takes, compare nothing.

    Args:
        classifier: the quantized file, or one of its heads, on the CPU.
        expected: the notebook's answers.
        receipt: of the float file on them.
        min_agreement: bound on the share of equal decisions, of a regression on the variance kept.

    Raises:
        QuantizationError: fewer agree; the message names some that do not.
    """
    if expected.answers.features is not None:
        return QuantizedAnswers(receipt)
    spec = classifier.spec
    answers = expected.answers.fitted_to(spec.labels)
    logits = file_logits(classifier, answers)
    found = compare(answers, logits, spec.task, spec.labels, temperature=spec.temperature)
    agreement = _agreement(answers, logits, found, spec.task)
    changed = tuple(row_name(answers, row) for row in found.changed)
    if not agreement >= min_agreement:
        raise QuantizationError(
            f"the quantized file {agreement_text(spec.task, agreement, len(answers), 'notebook')}, less than "
            f"{min_agreement:.2%}{_named(changed)}. No file was written. Give more typical images with --calibration "
            "or try another --quantize; if such changes do not matter to you, lower --min-agreement."
        )
    return QuantizedAnswers(replace(receipt, quantized=agreement), changed)


def _agreement(answers: Answers, logits: Rows, found: Comparison, task: str) -> float:
    if task != REGRESSION:
        return 1 - len(found.changed) / len(answers)
    assert answers.logits is not None  # prove_answers asks for them
    return max(float(r_squared(answers.logits, logits).min()), 0.0)


def _named(changed: Sequence[str]) -> str:
    return f" ({', '.join(changed[:_SHOWN])} decided otherwise)" if changed else ""
