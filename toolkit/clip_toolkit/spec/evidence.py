"""What was proved of a model file, laid out for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from clip_toolkit.spec.classifier import ModelSpec
from clip_toolkit.spec.receipts import (
    Differences,
    FastDecodeReceipt,
    NotebookReceipt,
    ParityReceipt,
    QuantizationReceipt,
    agreement_text,
)
from clip_toolkit.spec.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from clip_toolkit.spec.text_tower import TextTowerSpec

ENOUGH_ANSWERS = 16
"""Below this many answers of a notebook, agreement may be chance, and is said to prove little."""

Row: TypeAlias = tuple[str, str]
"""A name and what there is to say of it."""


def receipt_rows(spec: ModelSpec | TextTowerSpec) -> Iterator[Row]:
    """Give the evidence among the rows of `describe`, that of the quantization before that of the float file."""
    if isinstance(spec, TextTowerSpec):
        yield from _text_receipt_rows(spec)
    else:
        for index, head in enumerate(spec.heads.values()):
            rows = [*_quantization_rows(head), *_parity_rows(head)]
            yield from of_further_head(head.name, rows) if index else rows
        yield from _fast_decode_rows(spec)


def of_further_head(name: str, rows: Iterable[Row]) -> Iterator[Row]:
    """Put its name in front of what is about a further head."""
    return ((f"{name}: {about}", text) for about, text in rows)


_ENDINGS = {SINGLE_LABEL: "a softmax", MULTI_LABEL: "a sigmoid of each", REGRESSION: "raw values"}
"""What becomes of a head's outputs, by task."""


def notebook_rows(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """Yield what was assumed of a notebook's head, and how far its own answers were proved; nothing for other heads."""
    found = spec.notebook
    if spec.head.is_assumed:
        then = _ENDINGS[spec.task]
        read = spec.head.reading(spec.encoder.feature)
        yield "read as", f"{read}, from a notebook's {spec.head.source}, then {then}"
        if found is None:
            yield "", "assumed: parity is of this reading, and the notebook's own answers were not given (--expect)"
        elif not found.tells_task:
            others = " or ".join(text for task, text in _ENDINGS.items() if task != spec.task)
            yield "", f"assumed: {then}, not {others} (--task): the notebook's logits alone do not say"
    if found is not None:
        yield "notebook's answers", notebook_text(found, spec.task)
        if spec.quantization is not None:
            yield "  quantized", _quantized_answers(found, spec.task)


def _quantized_answers(found: NotebookReceipt, task: str) -> str:
    if found.quantized is None:
        return "not compared with the notebook's answers, which start from features: save images"
    return agreement_text(task, found.quantized, found.rows, "notebook")


def notebook_text(found: NotebookReceipt, task: str) -> str:
    """Return what the notebook's answers prove, for people."""
    equal = f"{found.rows} rows" if task == REGRESSION else f"all {found.rows} decisions equal"
    quantity = "values" if task == REGRESSION else "logits"
    within = f"within {found.difference:.1e} (tolerance {found.tolerance:.1e}"
    how = {
        "logits": f"{quantity} {within}, scale {found.scale:.3g})",
        "probabilities": f"probabilities {within})",
        "labels": "which say nothing of the probabilities",
    }[found.compared]
    reach = "" if found.through == "images" else "; from features on: encoder and preprocessing are not part of it"
    few = f"; only {found.rows} answers, which prove little" if found.rows < ENOUGH_ANSWERS else ""
    return f"{equal}, {how}{reach}{few}"


def _parity_rows(spec: ModelSpec) -> Iterator[Row]:
    parity = spec.parity
    if parity is None:
        yield "parity", "not recorded"
        return
    yield (
        "parity",
        (
            f"{_before_quantization(spec)}against PyTorch on {parity.images} pictures {_with_texts(parity)}"
            f"at batch {', '.join(map(str, parity.batches))}; "
            f"logit scale {parity.logit_scale:.3g}, tolerance {parity.tolerance:g} of it"
        ),
    )
    yield "  Pillow resize", _differences(parity.pillow)
    if parity.graph is not None:
        yield "  graph resize", _differences(parity.graph)
    for name, figures in parity.cross_check.items():
        yield f"  {name}", ", ".join(f"{key} {value}" for key, value in figures.items())


def _before_quantization(spec: ModelSpec) -> str:
    return "of the float32 file before quantization, " if spec.quantization is not None else ""


def _with_texts(parity: ParityReceipt) -> str:
    return f"with {parity.texts} texts " if parity.texts else ""


def _quantization_rows(spec: ModelSpec) -> Iterator[Row]:
    receipt = spec.quantization
    if receipt is None:
        yield "quantization", "none, float32"
        return
    target = f" for {receipt.target}" if receipt.mode == "int8" else ""
    yield "quantization", f"{receipt.mode}{target}: {receipt.choice}"
    yield "  agreement", _agreement(spec.task, receipt, receipt.evaluation_images)
    yield from _shift_rows(spec.task, receipt, "in float32")
    yield (
        "  tuned on",
        f"{receipt.calibration_images} images, {len(receipt.tried)} ways compared, {receipt.attempts} files judged",
    )
    if receipt.float_layers:
        yield "  in float", ", ".join(receipt.float_layers)
    if receipt.speed_ratio is None:
        speed = "speed not measured: the target is another kind of machine"
    else:
        slower = "SLOWER than float32, " if receipt.speed_ratio < 1 else ""
        speed = f"{slower}{receipt.speed_ratio:.2f} x as fast on the machine of the export"
    yield "  size, speed", f"{receipt.size_ratio:.3f} of float32's size, {speed}"


def _shift_rows(task: str, receipt: QuantizationReceipt | FastDecodeReceipt, before: str) -> Iterator[Row]:
    yield (
        "  values" if task == REGRESSION else "  probabilities",
        f"moved by {receipt.mean_shift:.4f} on average, {receipt.largest_shift:.4f} at most",
    )
    if receipt.accuracy_before is not None and receipt.accuracy_after is not None:
        yield "  accuracy", f"{receipt.accuracy_before:.2%} {before}, {receipt.accuracy_after:.2%} now"


def _fast_decode_rows(spec: ModelSpec) -> Iterator[Row]:
    receipt = spec.fast_decode
    if receipt is None:
        return
    yield "fast decode", f"JPEGs are scaled down while they are decoded, to no less than {receipt.side} pixels a side"
    yield "  agreement", _agreement(spec.task, receipt, receipt.images, "file with exact pixels")
    yield from _shift_rows(spec.task, receipt, "with exact pixels")


def _agreement(
    task: str, receipt: QuantizationReceipt | FastDecodeReceipt, images: int, other: str = "float file"
) -> str:
    return (
        f"{agreement_text(task, receipt.agreement, images, other)} ({receipt.source}); "
        f"{len(receipt.flips)} flips, at least {receipt.min_agreement:.2%} was asked for"
    )


def _differences(differences: Differences) -> str:
    return (
        f"pixels {differences.pixels} of 255 in {differences.pixels_share:.4%}, embedding {differences.embedding:.1e}, "
        f"logits {differences.logits:.1e}, probabilities {differences.probabilities:.1e}"
    )


def _text_receipt_rows(spec: TextTowerSpec) -> Iterator[Row]:
    parity = spec.parity
    if parity is None:
        yield "parity", "not recorded"
    else:
        yield (
            "parity",
            (
                f"against PyTorch on {parity.texts} texts ({parity.truncated} beyond the context) at batch "
                f"{', '.join(map(str, parity.batches))}: tokens equal, features {parity.features:.1e} of "
                f"{parity.feature_scale:.3g}, embedding {parity.embedding:.1e}; tolerance {parity.tolerance:g}"
            ),
        )
    yield "quantization", _text_quantization(spec)


def _text_quantization(spec: TextTowerSpec) -> str:
    receipt = spec.quantization
    if receipt is None:
        return "none, float32"
    return (
        f"{receipt.mode}: cosine similarity with the float file's embeddings {receipt.mean_cosine:.4f} on average, "
        f"at least {receipt.least_cosine:.4f} on {receipt.texts} texts ({receipt.min_cosine:g} was asked for); "
        f"{receipt.size_ratio:.3f} of its size, {receipt.speed_ratio:.2f} x as fast at export"
    )
