"""A model file's spec, laid out for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from clip_toolkit.listing import table
from clip_toolkit.spec.classifier import NO_HEAD, HeadSpec, ModelSpec, Preprocessing
from clip_toolkit.spec.evidence import Row, notebook_rows, of_further_head, receipt_rows
from clip_toolkit.spec.licenses import license_rows_of_file
from clip_toolkit.spec.tasks import REGRESSION
from clip_toolkit.spec.text_tower import TextTowerSpec
from clip_toolkit.spec.trust import CoverageSpec, NoveltySpec


def describe(spec: ModelSpec | TextTowerSpec, path: Path) -> list[str]:
    """Lay out what a model file recognises, how it was made and what was proved of it, one line each."""
    return lay_out([("model", f"{path.name}, {path.stat().st_size / 2**20:.1f} MiB"), *description_rows(spec)])


def description_rows(spec: ModelSpec | TextTowerSpec) -> Iterator[Row]:
    """Give the rows of `describe` but the first, which is about the file."""
    return _text_tower_rows(spec) if isinstance(spec, TextTowerSpec) else _rows(spec)


def lay_out(rows: Iterable[Row]) -> list[str]:
    """Align rows, with escapes for what a terminal would obey: a model file may come from anybody."""
    return list(table([name, text] for name, text in rows))


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
        yield from of_further_head(name, [*_asked(further), *_head_rows(further)])
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
