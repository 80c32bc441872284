"""``clip-export``: a head, or the words for one, and its encoder in, one proved ONNX file out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clip_export.commands import EXPORT
from clip_toolkit.spec.classifier import NO_HEAD
from clip_toolkit.terminal import as_command, show, write

if TYPE_CHECKING:
    from clip_export.commands.export_options import ExportCommand
    from clip_export.encoders.image import Encoder
    from clip_export.encoders.text import TextEncoder
    from clip_export.exporting import ExportOptions
    from clip_export.heads.files import TrainedHead
    from clip_export.heads.references import EncoderReference
    from clip_toolkit.spec.classifier import ModelSpec
    from clip_toolkit.spec.text_tower import TextTowerSpec


def run(command: ExportCommand) -> int:
    """Export and print the receipt; return the exit code."""
    from clip_toolkit.files.atomic import check_writable

    check_writable(command.output)
    export = _export_text if command.text_tower else _export_classifier
    if command.sign is None:
        export(command)
        return 0

    from clip_toolkit.files.signature import sign, signer

    by = signer(command.sign)  # before minutes of work
    export(command)
    show(f"signed by {command.sign}: {sign(command.output, by)}")
    return 0


def _export_text(command: ExportCommand) -> None:
    from clip_export.encoders.text import TextEncoder
    from clip_export.text_exporting import export_text_tower

    assert command.encoder is not None  # ExportCommand asks for it
    tower = TextEncoder.from_pretrained(command.encoder, command.revision, command.open_clip)
    least = None if command.quantization is None else command.quantization.min_agreement
    show(*tower.notes)
    spec = export_text_tower(tower, command.output, command.ops, least)
    _tell(spec, command.output, f"the text tower of {spec.encoder.id}")


def _export_classifier(command: ExportCommand) -> None:
    from clip_export.commands.export_notebook import expected_answers, notebook_receipt
    from clip_export.commands.export_quantization import changed_lines, flip_lines
    from clip_export.draft_spec import checked_labels
    from clip_export.exporting import export_classifier
    from clip_export.heads.checkpoints import agreed_labels
    from clip_export.triton_repository.writing import check_repository, write_repository
    from clip_toolkit.errors import ExpectError, HeadError

    if command.triton is not None:
        check_repository(command.output, command.triton)
    if command.head is not None:
        head, encoder = _trained(command, command.head)
    else:
        head, encoder = _no_head(command) if command.encoder_only else _zero_shot(command)
    show(*encoder.notes)
    if command.triton is not None and head.further:
        raise HeadError(f"{command.head}: has several heads, and --triton writes configurations of one. Leave it out.")
    tower = _tower(encoder) if head.encoder is not None and head.encoder.text else None
    expected = expected_answers(command.notebook, head)
    if expected is not None and tower is not None:
        raise ExpectError("--expect: this head reads texts, and the notebook's answers are to images alone.")
    told = expected.answers.labels if expected is not None and head.labels is None else None
    given = None if head.further else command.labels  # of several heads they have been read with the weights
    if command.head is not None and head.encoder is None:
        agreed_labels(head.labels, given, command.head)
    labels = checked_labels(head, encoder, given or told, tower)
    options = replace(_options(command, labels, encoder, head), expected=expected)
    exported = export_classifier(head, encoder, command.output, labels, options, tower=tower)
    flips = () if exported.quantized is None else flip_lines(exported.quantized.decisions)
    fast = flip_lines(exported.fast_decoded, "flip with fast decoding")
    notes = (*flips, *fast, *notebook_receipt(exported.spec), *changed_lines(exported.changed))
    _tell(exported.spec, command.output, "; ".join(_labels_of(exported.spec)), notes)
    if command.triton is not None:
        *_, ensemble = write_repository(command.output, command.triton)
        show(f"added {command.output.stem} to {command.triton}; {ensemble} takes encoded images")


def _labels_of(spec: ModelSpec) -> Iterator[str]:
    if spec.head.source == NO_HEAD:
        yield f"the {spec.encoder.feature} feature of {spec.encoder.id}, {spec.encoder.dim} wide"
        return
    for name, head in spec.heads.items():
        yield f"{f'{name} ' if name else ''}labels: {', '.join(head.labels)}"


def _tell(spec: ModelSpec | TextTowerSpec, output: Path, content: str, notes: Sequence[str] = ()) -> None:
    """Print the evidence in the file that was written, what else there is to say of it, and its name."""
    from clip_toolkit.spec.description import lay_out
    from clip_toolkit.spec.evidence import receipt_rows
    from clip_toolkit.spec.licenses import license_rows_of_file

    write(*lay_out([*license_rows_of_file(spec.encoder.licenses), *receipt_rows(spec)]))
    show(*notes)
    show(f"wrote {output} ({output.stat().st_size / 2**20:.1f} MiB), {content}")


def _trained(command: ExportCommand, path: Path) -> tuple[TrainedHead, Encoder]:
    from clip_export.commands.export_notebook import reading_of
    from clip_export.heads.files import load_head
    from clip_export.heads.several import named_labels
    from clip_export.heads.tuned_encoder import referenced_encoder
    from clip_toolkit.errors import OutputError

    if command.output.exists() and path.exists() and command.output.samefile(path):
        raise OutputError(f"{command.output}: is the head file itself. Name another output with -o.")
    head = load_head(path, reading_of(command.notebook), named_labels(command.labels))
    encoder = referenced_encoder(
        path, head.encoder, command.encoder, command.revision, command.feature, open_clip_model=command.open_clip
    )
    if head.encoder is not None:
        show(*_differences(head.encoder, encoder))
    return head, encoder


def _differences(trained: EncoderReference, used: Encoder) -> Iterator[str]:
    """Tell where an encoder that the options name is not, or may not be, the one that the head was trained on."""
    from clip_export.encoders.digest import tokenizer_digest

    is_own = trained.folder is not None or (trained.revision is None and trained.id == used.id)  # all that is known
    if trained.revision != used.revision and not is_own:
        before, now = (f"{it.id} of revision {(it.revision or 'unknown')[:12]}" for it in (trained, used))
        yield f"assumed: {now} does as {before}, on which the head was trained. The parity below does not prove it."
    if trained.feature != used.feature:
        yield f"assumed: the head takes the {used.feature} feature, though it was trained on the {trained.feature} one."
    if trained.tokenizer and trained.tokenizer != tokenizer_digest(used.checkpoint.source):
        yield f"assumed: the tokenizer of {used.id}, though the head was trained with one of other content."


def _zero_shot(command: ExportCommand) -> tuple[TrainedHead, Encoder]:
    from clip_export.encoders.checkpoint import Checkpoint
    from clip_export.encoders.image import Encoder
    from clip_export.encoders.text import TextEncoder
    from clip_export.heads.zero_shot import TEMPLATES, check_words, zero_shot_head

    assert command.encoder is not None  # ExportCommand asks for both
    assert command.labels is not None
    labels, templates = command.labels, command.templates or TEMPLATES
    id_, revision, model = command.encoder, command.revision, command.open_clip
    check_words(labels, templates, Checkpoint.find(id_, revision, model).family)
    tower = TextEncoder.from_pretrained(id_, revision, model)
    show(*tower.notes)
    head = zero_shot_head(tower, labels, templates)
    show(f"zero-shot, {head.task}: {len(labels)} labels in the prompts {', '.join(map(repr, templates))}")
    return head, Encoder.from_pretrained(id_, revision, "projected", model)


def _no_head(command: ExportCommand) -> tuple[TrainedHead, Encoder]:
    from clip_export.encoders.image import Encoder
    from clip_export.heads.no_head import no_head

    assert command.encoder is not None  # ExportCommand asks for it
    feature = command.feature or "pooled"
    encoder = Encoder.from_pretrained(command.encoder, command.revision, feature, command.open_clip)
    return no_head(encoder.dim), encoder


def _text_column(head: TrainedHead) -> str | None:
    """Where a manifest has the texts of a head that reads some: where the one that it learnt from had them."""
    if head.encoder is None or not head.encoder.text:
        return None
    return (head.data.text_column if head.data is not None else None) or "text"


def _tower(encoder: Encoder) -> TextEncoder:
    """Load the text tower that a head reads beside the encoder of the same checkpoint."""
    from clip_export.encoders.text import TextEncoder

    return TextEncoder.from_pretrained(encoder.id, encoder.revision, encoder.checkpoint.open_clip_model)


def _options(command: ExportCommand, labels: tuple[str, ...], encoder: Encoder, head: TrainedHead) -> ExportOptions:
    from clip_export.commands.export_quantization import fast_decode_options, quantization_options
    from clip_export.exporting import CrossCheck, ExportOptions
    from clip_export.quantization.evidence.files import Wanted
    from clip_export.quantization.request import QuantizationRequest
    from clip_toolkit.errors import HeadError
    from clip_toolkit.images.folder import ImageListing

    checks: tuple[tuple[str, CrossCheck], ...] = ()
    if command.cross_check and head.encoder is not None and head.encoder.text:
        raise HeadError(f"{command.head}: reads texts, and --cross-check compares classifiers of images alone.")
    if command.cross_check:
        from clip_export.proof.optimum import optimum_differences

        checks = ((command.cross_check, optimum_differences),)
    asked = command.quantization
    listing = ImageListing(all_files=asked is not None and asked.all_files)
    wanted = Wanted(labels, encoder.preprocessing, head.task, _text_column(head), listing)
    quantization = None if asked is None else quantization_options(asked, wanted, head.data)
    least = (asked or QuantizationRequest).min_agreement
    return ExportOptions(
        command.input,
        command.ops,
        command.notebook.temperature,
        cross_checks=checks,
        quantization=quantization,
        explain=command.explain,
        fast_decode=fast_decode_options(command.fast_decode, least, wanted, head.data),
    )


@as_command(EXPORT)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    from clip_export.commands.export_options import parse_args
    from clip_export.commands.libraries import prepare_libraries

    command = parse_args(argv)
    prepare_libraries()
    return run(command)


if __name__ == "__main__":
    sys.exit(main())
