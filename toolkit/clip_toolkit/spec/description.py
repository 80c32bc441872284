"""A model file's spec, laid out for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from clip_toolkit.listing import table
from clip_toolkit.spec.classifier import NO_HEAD, HeadSpec, ModelSpec, Preprocessing
from clip_toolkit.spec.licenses import license_rows_of_file
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
from clip_toolkit.spec.trust import CoverageSpec, NoveltySpec

ENOUGH_ANSWERS = 16
"""Below this many answers of a notebook, agreement may be chance, and is said to prove little."""

Row: TypeAlias = tuple[str, str]
"""A name and what there is to say of it."""


def describe(spec: ModelSpec | TextTowerSpec, path: Path) -> list[str]:
    """Lay out what a model file recognises, how it was made and what was proved of it, one line each."""
    return lay_out([("model", f"{path.name}, {path.stat().st_size / 2**20:.1f} MiB"), *description_rows(spec)])


def description_rows(spec: ModelSpec | TextTowerSpec) -> Iterator[Row]:
    """Give the rows of `describe` but the first, which is about the file."""
    return _text_tower_rows(spec) if isinstance(spec, TextTowerSpec) else _rows(spec)


def receipt_rows(spec: ModelSpec | TextTowerSpec) -> Iterator[Row]:
    """Give the evidence among the rows of `describe`, that of the quantization before that of the float file."""
    if isinstance(spec, TextTowerSpec):
        yield from _text_receipt_rows(spec)
    else:
        for index, head in enumerate(spec.heads.values()):
            rows = [*_quantization_rows(head), *_parity_rows(head)]
            yield from _of_further_head(head.name, rows) if index else rows
        yield from _fast_decode_rows(spec)


def _of_further_head(name: str, rows: Iterable[Row]) -> Iterator[Row]:
    """Put its name in front of what is about a further head."""
    return ((f"{name}: {about}", text) for about, text in rows)


def lay_out(rows: Iterable[Row]) -> list[str]:
    """Align rows, with escapes for what a terminal would obey: a model file may come from anybody."""
    return list(table([name, text] for name, text in rows))


_ENDINGS = {SINGLE_LABEL: "a softmax", MULTI_LABEL: "a sigmoid of each", REGRESSION: "raw values"}
"""What becomes of a head's outputs, by task."""


def _rows(spec: ModelSpec) -> Iterator[Row]:
    encoder, rule = spec.encoder, spec.preprocessing
    revision = f" at {encoder.revision}" if encoder.revision else ""
    if spec.tasks:
        yield (
            "heads",
            f"{', '.join(spec.heads)}, by one run of the encoder; what is below without a name is {spec.name}'s",
        )
    yield from _asked(spec)
    yield "encoder", f"{encoder.id}{revision} ({encoder.family}, {encoder.feature} feature, {encoder.dim} wide)"
    if encoder.base is not None:
        yield "adapter of", encoder.base
    yield from license_rows_of_file(encoder.licenses)
    if spec.text is not None:
        yield "text tower", f"of the same checkpoint, {spec.text.dim} wide, behind the image's feature"
    yield from _head_rows(spec)
    for name, further in [*spec.heads.items()][1:]:
        yield from _of_further_head(name, [*_asked(further), *_head_rows(further)])
    yield from _beside_the_answer(spec)
    yield "input", _input(spec)
    yield "preprocessing", _preprocessing(rule)
    if rule.mode == "pad":
        yield "borders", f"{rule.fill} of 255 in each channel"
    yield "normalisation", f"scale {rule.scale:.6g}, mean {_numbers(rule.mean)}, std {_numbers(rule.std)}"
    yield "operators", "standard ONNX" if spec.ops == "standard" else "standard ONNX and com.microsoft"
    for name, value in spec.training.items():
        yield f"training {name}", str(value)
    yield from receipt_rows(spec)
    yield "golden vectors", f"{len(spec.golden)} pictures"
    yield "runs on", f"ONNX Runtime {spec.onnxruntime} or newer"
    yield "made with", ", ".join(f"{name} {version}" for name, version in spec.tools.items())
    yield "format", f"version {spec.version}"


def _beside_the_answer(spec: ModelSpec) -> Iterator[Row]:
    if spec.novelty is not None:
        yield "novelty", _novelty(spec.novelty)
    if spec.coverage is not None:
        yield "sets of labels", _coverage(spec.coverage)
    if spec.reference is not None:
        yield "reference", f"statistics of {spec.reference.images} images, to tell drift by: clip-eval --drift"
    if spec.relevance is not None:
        yield "relevance", f"{spec.relevance.rows} x {spec.relevance.columns} patches: what speaks for the top label"


def _asked(spec: ModelSpec) -> Iterator[Row]:
    if spec.head.source == NO_HEAD:
        yield "task", "none: an encoder alone, whose values are the channels of its feature (clip-scale features)"
        return
    yield "task", spec.task
    yield "values" if spec.task == REGRESSION else "labels", ", ".join(spec.labels)


def _head_rows(spec: ModelSpec) -> Iterator[Row]:
    yield "head", _head(spec.head)
    yield from notebook_rows(spec)
    yield "temperature", f"{spec.temperature:g}"
    if spec.thresholds:
        yield "thresholds", ", ".join(f"{label} from {value:.4g} on" for label, value in spec.thresholds.items())


def _novelty(novelty: NoveltySpec) -> str:
    share = f"{novelty.share:.1%} of {novelty.images} validation images are"
    then = ""
    if novelty.quantized:
        before, after = novelty.quantized
        then = f"; of the images that judged the quantization {before:.1%} in float32, {after:.1%} now"
    return f"unlike the training images beyond {novelty.threshold:.4g}, as {share}{then}"


def _coverage(coverage: CoverageSpec) -> str:
    promise = f"hold the right one for {coverage.share:.4g} of further images like the {coverage.images} calibrated on"
    return (
        f"{promise}: the labels with up to {coverage.quantile:.4g} of probability before them, whatever the threshold"
    )


def _head(head: HeadSpec) -> str:
    normalised = "normalised feature, " if head.feature_norm else ""
    if head.form:
        return f"{normalised}{head.layers[0]} -> {head.form}"
    return f"{normalised}{' -> '.join(map(str, head.layers))}, {head.activation}, dropout {head.dropout:g}"


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


def _preprocessing(rule: Preprocessing) -> str:
    if rule.mode == "naflex":
        shape = f"own shape, at most {rule.max_patches} patches of {rule.patch}x{rule.patch} pixels, {rule.resample}"
    else:
        shape = (
            f"resize {rule.resize}, size {rule.size}, {rule.resample}; longer side {rule.long_edge}d, "
            f"crop offset {rule.crop_offset}"
        )
    return f"{rule.mode}: {shape}; EXIF orientation: {rule.exif}"


def _input(spec: ModelSpec) -> str:
    size = spec.preprocessing.size
    if spec.input == "image":
        return f"image: uint8 RGB [batch, height, width, 3], any size{_text_input(spec)}"
    return f"pixel_values: float32 [batch, 3, {size}, {size}], normalised{_text_input(spec)}"


def _text_input(spec: ModelSpec) -> str:
    if spec.text is None:
        return ""
    tokens = spec.text.tokenizer.context
    return f"; and a text: input_ids, attention_mask int64 [batch, tokens], at most {tokens} tokens (tokenizer inside)"


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


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def _text_tower_rows(spec: TextTowerSpec) -> Iterator[Row]:
    encoder, tokenizer = spec.encoder, spec.tokenizer
    revision = f" at {encoder.revision}" if encoder.revision else ""
    yield "task", "text embeddings"
    yield "encoder", f"{encoder.id}{revision} ({encoder.family}, {encoder.feature} feature, {encoder.dim} wide)"
    yield from license_rows_of_file(encoder.licenses)
    yield "input", f"input_ids, attention_mask: int64 [batch, tokens], at most {tokenizer.context} tokens"
    padded = "always to the context" if tokenizer.pad_to_context else "to the longest text of a batch"
    yield "tokenizer", f"in the file; padded {padded} with token {tokenizer.pad_id} on the {tokenizer.padding_side}"
    bias = "" if spec.logit_bias is None else f", bias {spec.logit_bias:.6g}"
    yield "logits", f"cosine similarity times {spec.logit_scale:.6g}{bias}"
    yield "operators", "standard ONNX" if spec.ops == "standard" else "standard ONNX and com.microsoft"
    yield from receipt_rows(spec)
    yield "golden vectors", f"{len(spec.golden)} texts"
    yield "runs on", f"ONNX Runtime {spec.onnxruntime} or newer"
    yield "made with", ", ".join(f"{name} {version}" for name, version in spec.tools.items())
    yield "format", f"version {spec.version}"


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
