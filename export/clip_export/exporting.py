"""From a head and its encoder to a proved model file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
from torch import nn

from clip_export.draft_spec import checked_labels, draft_spec
from clip_export.encoders.image import Encoder
from clip_export.encoders.text import TextEncoder, text_features
from clip_export.expect.proving import Expected, prove_answers
from clip_export.expect.quantized import check_quantized
from clip_export.fast_decode import FastDecodeOptions, judge_fast_decode
from clip_export.further_outputs import with_further_outputs
from clip_export.graph.fused_network import fused_graph
from clip_export.graph.large import FLOAT32, SMALLER, load_own, save_own
from clip_export.graph.model_file import ONNXRUNTIME, save_model
from clip_export.graph.network import Answers, network_graph
from clip_export.heads.alternatives import alternatives
from clip_export.heads.files import TrainedHead
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.pooling import with_pooling
from clip_export.heads.whole_checkpoint import with_tower
from clip_export.proof.golden import golden_vectors, own_golden_vectors
from clip_export.proof.parity import check_replay, check_second_opinions, prove
from clip_export.proof.reference import Reference, reference
from clip_export.proof.relevance import check_explained
from clip_export.quantization.evidence.gate import Decisions
from clip_export.quantization.quantizing import QuantizationOptions, Quantized, quantize
from clip_export.samples.pictures import proof_files
from clip_export.samples.texts import PROOF_TEXTS
from clip_toolkit import Classifier, load, selftest
from clip_toolkit.errors import EncoderError, ExpectError, HeadError, ParityError
from clip_toolkit.files.atomic import check_writable, temporary_beside, written_atomically
from clip_toolkit.spec.classifier import NO_HEAD, ModelSpec
from clip_toolkit.spec.rewriting import write_with

CrossCheck = Callable[[Encoder, nn.Module, Sequence[bytes], Reference], dict[str, float]]
"""A second exporter's largest differences from PyTorch, by output."""


@dataclass(frozen=True)
class ExportOptions:
    """How the file is written.

    Attributes:
        input: ``image`` or ``pixels``, as in `clip_toolkit.spec.classifier.ModelSpec`.
        ops: ``ort`` or ``standard``, likewise.
        temperature: in place of the head's own.
        cross_checks: second opinions, by name.
        quantization: how to quantize it, or None to leave it in float32.
        expected: the notebook's answers, of every head, for a further proof; not for heads that read texts.
        explain: add the output ``relevance``; not for heads that read texts, several heads or others than `VLMtoMLP`.
        fast_decode: images that judge whether JPEGs may be scaled down while they are decoded, or None.
    """

    input: str = "image"
    ops: str = "ort"
    temperature: float | None = None
    cross_checks: tuple[tuple[str, CrossCheck], ...] = ()
    quantization: QuantizationOptions | None = None
    expected: Expected | None = None
    explain: bool = False
    fast_decode: FastDecodeOptions | None = None


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        spec: the spec in the file, with its receipts.
        quantized: what quantization changed, with the names of the images, or None.
        changed: names of images that the quantized file decides otherwise than the notebook.
        fast_decoded: of each head by its name, what fast decoding changed, with the names of the images.
    """

    spec: ModelSpec
    quantized: Quantized | None = None
    changed: tuple[str, ...] = ()
    fast_decoded: Mapping[str, Decisions] = field(default_factory=dict)


def export_classifier(
    head: TrainedHead,
    encoder: Encoder,
    output: Path,
    labels: Sequence[str] | None = None,
    options: ExportOptions = ExportOptions(),
    *,
    tower: TextEncoder | None = None,
) -> Exported:
    """Write encoder, head and preprocessing as one ONNX file, proved against PyTorch before it appears.

    Args:
        head: the head, with `TrainedHead.further` ones beside it.
        encoder: the encoder it was trained on.
        output: the file to write; what is there stays untouched unless everything succeeds.
        labels: class names of the main head, default its own.
        options: how the file is written.
        tower: the text tower of the same checkpoint, for a head that reads texts; it goes into the file with its
            tokenizer.

    Raises:
        EncoderError: more weights than one file holds, or the tokenizer cannot be carried over.
        ExpectError: the notebook's answers are of another kind or of other labels than the head's.
        HeadError: the head, or its learnt pooling, does not fit the encoder or the labels.
        OutputError: the file cannot be written.
        ParityError: the file does not reproduce the PyTorch model, or the notebook's answers, or decides otherwise when
            it decodes fast.
        QuantizationError: it cannot be quantized, or would decide differently.
    """
    encoder = with_pooling(with_tower(encoder, head.tower), head)
    _check_together(head, options)
    if options.explain:
        check_explained(head, encoder, reads_texts=tower is not None)
    labels = checked_labels(head, encoder, labels, tower)
    named = [(head, labels), *((item, checked_labels(item, encoder, None, tower)) for item in head.further)]
    if encoder.family.image.naflex:
        _check_naflex(encoder, options)
    check_writable(output)
    spec = draft_spec(named, encoder, tower, kind=options.input, ops=options.ops, temperature=options.temperature)
    heads = {item.name: item for item, _ in named}
    model = _graph(encoder, tower, heads, spec, options)
    with written_atomically(output) as temporary, temporary_beside(output, is_folder=True) as scratch:
        unquantized = temporary if options.quantization is None else scratch / "float32.onnx"
        save_own(model, spec, unquantized)
        spec = ModelSpec.joined(
            _proved(classifier, heads[name].module, encoder, tower, cross_checks=options.cross_checks)
            for name, classifier in load_own(unquantized).heads.items()
        )
        save_own(model, spec, unquantized)
        check_replay(selftest(load_own(unquantized)))
        if options.expected is not None:
            spec = _answering(spec, options.expected, load_own(unquantized).heads, encoder, heads)
            save_own(model, spec, unquantized)
        if options.quantization is None:
            exported = Exported(with_further_outputs(model, spec, head, encoder, options.explain, path=temporary))
        else:
            del model  # as large as the file, and no longer needed
            exported = _quantized(unquantized, spec, head, encoder, options, output=temporary)
        return _with_fast_decode(exported, options.fast_decode, temporary, scratch / "finished.onnx")


def _check_together(head: TrainedHead, options: ExportOptions) -> None:
    """Refuse what does not go with several heads, or with heads of other layers."""
    if head.further and options.temperature is not None:
        raise HeadError("--temperature does not say of which head: save each head's own beside its weights.")
    if options.quantization is None or not options.quantization.refit:
        return
    if head.further:
        raise HeadError("--refit goes with a file of one head.")
    if not isinstance(head.module, VLMtoMLP):
        raise HeadError("--refit goes with heads of Linear layers and activations alone, and this one has others.")


def _check_naflex(encoder: Encoder, options: ExportOptions) -> None:
    """Refuse what takes images of one size for granted."""
    if options.input == "pixels":
        raise EncoderError(
            f"{encoder.id}: its images keep their shape, and --input pixels is of one size. Leave it out."
        )
    if options.expected is not None:
        raise EncoderError(f"{encoder.id}: its images keep their shape, which --expect cannot diagnose. Leave it out.")


def _graph(
    encoder: Encoder,
    tower: TextEncoder | None,
    heads: Mapping[str, TrainedHead],
    spec: ModelSpec,
    options: ExportOptions,
) -> onnx.ModelProto:
    precision = FLOAT32 if options.quantization is None else options.quantization.mode
    made = [(heads[name].module, Answers(own.task, own.temperature)) for name, own in spec.heads.items()]
    (head, answers), *others = made
    if tower is None:
        further = dict(zip((task.name for task in spec.tasks), others, strict=True))
        return network_graph(
            encoder,
            head,
            spec.input,
            spec.ops,
            answers,
            further=further,
            precision=precision,
            others=() if spec.head.source == NO_HEAD else SMALLER,
        )
    return fused_graph(encoder, tower, head, spec.input, ops=spec.ops, answers=answers, precision=precision)


def _answering(
    spec: ModelSpec,
    expected: Expected,
    opened: Mapping[str, Classifier],
    encoder: Encoder,
    heads: Mapping[str, TrainedHead],
) -> ModelSpec:
    """Add the notebook's receipts to the spec."""
    proved = {}
    for name, own in spec.heads.items():
        try:
            receipt = prove_answers(opened[name], expected.of(name), encoder, alternatives(heads[name]))
        except (ExpectError, ParityError) as error:
            form = "Of several heads --labels takes NAME=LABEL,LABEL and --task NAME=TASK."
            raise type(error)(f"{name}: {error} {form}" if name else str(error)) from error
        proved[name] = replace(own, notebook=receipt)
    return ModelSpec.joined(proved.values())


def _quantized(
    path: Path, spec: ModelSpec, head: TrainedHead, encoder: Encoder, options: ExportOptions, *, output: Path
) -> Exported:
    """Write the quantized form of a proved float file to ``output``."""
    asked = options.quantization
    assert asked is not None
    quantized = quantize(path, head.module, asked, output)
    needed = ONNXRUNTIME.get(asked.mode, spec.onnxruntime)
    specs = {
        name: replace(own, quantization=quantized.receipts[name], onnxruntime=needed)
        for name, own in spec.heads.items()
    }
    save_model(quantized.model, ModelSpec.joined(specs.values()), output)
    spec, changed = _with_own_answers(load(output, device="cpu").heads, specs, options.expected, asked.min_agreement)
    save_model(quantized.model, spec, output)
    check_replay(selftest(load(output, device="cpu")))
    head = replace(head, module=quantized.head)
    spec = with_further_outputs(quantized.model, spec, head, encoder, options.explain, path=output, quantized=quantized)
    return Exported(spec, quantized, changed)


def _with_own_answers(
    opened: Mapping[str, Classifier], specs: Mapping[str, ModelSpec], expected: Expected | None, min_agreement: float
) -> tuple[ModelSpec, tuple[str, ...]]:
    """Return the spec with the golden vectors of a quantized file itself, and the images decided otherwise than asked.

    Those are named where the notebook's answers are known, whose receipts are renewed.
    """
    changed: tuple[str, ...] = ()
    answered = []
    for name, own in specs.items():
        notebook = own.notebook
        if expected is not None and notebook is not None:
            found = check_quantized(opened[name], expected.of(name), notebook, min_agreement)
            notebook = found.receipt
            changed += tuple(f"{name}: {image}" if name else image for image in found.changed)
        answered.append(replace(own, notebook=notebook, golden=own_golden_vectors(opened[name], own.golden)))
    return ModelSpec.joined(answered), changed


def _with_fast_decode(exported: Exported, asked: FastDecodeOptions | None, path: Path, scratch: Path) -> Exported:
    """Judge fast decoding by the finished file, and write into it that it passed."""
    if asked is None:
        return exported
    receipt, decisions = judge_fast_decode(path, asked)
    write_with(path, scratch, {"fast_decode": receipt}, {})
    scratch.replace(path)
    return replace(exported, spec=replace(exported.spec, fast_decode=receipt), fast_decoded=decisions)


def _proved(
    classifier: Classifier,
    head: nn.Module,
    encoder: Encoder,
    tower: TextEncoder | None,
    *,
    cross_checks: Sequence[tuple[str, CrossCheck]],
) -> ModelSpec:
    """Return the spec of a file, or of one of its heads, with the parity receipt and the golden vectors."""
    spec = classifier.spec
    files = proof_files(encoder.preprocessing.resize)
    texts = None if tower is None else PROOF_TEXTS[: len(files)]
    features = None if tower is None or texts is None else text_features(tower, texts, batch_size=1)
    expected = reference(encoder, head, files, spec.task, spec.temperature, texts=features)
    receipt = prove(classifier, files, expected, texts)
    checks = {name: check(encoder, head, files, expected) for name, check in cross_checks}
    check_second_opinions(checks, receipt.logit_scale)
    golden = golden_vectors(encoder, tower, head, spec)
    return replace(spec, parity=replace(receipt, cross_check=checks), golden=golden)
