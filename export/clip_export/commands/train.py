"""``clip-train``: labelled images in, a trained head out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clip_export.commands import TRAIN
from clip_toolkit.stream.feature_table import holds_features
from clip_toolkit.terminal import as_command, show, write

if TYPE_CHECKING:
    from clip_export.commands.train_finetuning import FineTuned
    from clip_export.commands.train_options import TrainCommand
    from clip_export.encoders.image import Encoder
    from clip_export.heads.zero_shot import ZeroShot
    from clip_export.training.judging.decisions import Judge
    from clip_export.training.loop import Training
    from clip_export.training.options import TrainingOptions
    from clip_export.training.preparation import Prepared
    from clip_toolkit.data.dataset import Dataset


def run(command: TrainCommand) -> int:
    """Train and write the head; return the exit code."""
    from clip_export.commands.train_finished_head import encoder_reference, finish_head, save_finished
    from clip_export.commands.train_from_features import train_from_features
    from clip_export.commands.train_from_words import start_words
    from clip_export.commands.train_results import compare, show_results
    from clip_export.commands.train_stages import score_alone
    from clip_export.training.judging.decisions import Judge
    from clip_export.training.preparation import read_dataset
    from clip_toolkit.spec.description import lay_out
    from clip_toolkit.spec.licenses import license_rows

    if command.judging.explain_preprocessing is not None:
        return _explain(command, command.judging.explain_preprocessing)
    _check_outputs(command)
    data = command.data
    assert data is not None  # TrainCommand asks for it
    if holds_features(data):
        return train_from_features(command, data)
    command = _with_device(command, _device(command.features.device))
    options, judging = command.examples, command.judging
    dataset = read_dataset(data, options)
    judge = Judge(dataset.task, dataset.labels, judging.operating_point, judging.positive, judging.calibrate)
    words = None if command.start is None else start_words(command, command.start, dataset)
    encoder = _encoder(command)
    labels = ", ".join(dataset.labels)
    show(f"{len(dataset.files)} files, labels: {labels}; encoder {command.encoder}, {encoder.dim} wide")
    show(*encoder.notes)
    write(*lay_out(license_rows(encoder.checkpoint.licenses)))
    prepared, training, chosen, tuned = _train(command, encoder, dataset, words, judge)
    if tuned is None:
        encoder, tuned = _tuned(command, encoder, prepared, training, chosen=chosen, judge=judge)
    else:
        words = None  # they were compared before the encoder changed
    if tuned is not None:
        prepared, training = tuned.prepared, tuned.training
    alone = score_alone(command, prepared, training, chosen, judge)
    judgement = compare(judge, prepared, training, words)
    reference = encoder_reference(
        command.encoder,
        encoder.checkpoint,
        encoder.checkpoint.commit,
        encoder.feature,
        text=prepared.texts is not None,
        input_size=encoder.input_size,
    )
    head = finish_head(command, prepared, training, chosen, reference, judgement=judgement, alone=alone)
    head = save_finished(command, head, encoder, tuned)
    show_results(command, head, judgement, alone)
    beside = head.encoder.folder if head.encoder is not None else None
    show(f"wrote {command.out}" + (f" and its encoder, {command.out.with_name(beside)}" if beside else ""))
    if judging.report is not None:
        from clip_export.training.report.report import write_report

        pages = write_report(judging.report, prepared, training, head, encoder, judgement=judgement, alone=alone)
        show(*(f"wrote {page}" for page in pages))
    return 0


def _tuned(
    command: TrainCommand,
    encoder: Encoder,
    prepared: Prepared,
    frozen: Training,
    *,
    chosen: TrainingOptions,
    judge: Judge,
) -> tuple[Encoder, FineTuned | None]:
    """Train what learns beside the head, if anything does."""
    from clip_export.commands.train_finetuning import finetune_encoder
    from clip_export.commands.train_pooling import learn_pooling

    if command.learns_pooling:
        return learn_pooling(command, encoder, prepared, frozen=frozen, head_options=chosen, judge=judge)
    if command.tuning is None:
        return encoder, None
    return encoder, finetune_encoder(
        command, encoder, prepared, frozen=frozen, head_options=chosen, options=command.tuning, judge=judge
    )


def _train(
    command: TrainCommand, encoder: Encoder, dataset: Dataset, words: ZeroShot | None, judge: Judge
) -> tuple[Prepared, Training, TrainingOptions, FineTuned | None]:
    """Encode the data and train the head, and where that is the best start, the encoder's projection."""
    from clip_export.commands.train_from_words import train_with_words
    from clip_export.commands.train_projection import train_with_projection
    from clip_export.commands.train_results import show_kept_epoch
    from clip_export.commands.train_stages import prepare_data, train
    from clip_export.encoders.text import TextEncoder
    from clip_export.training.projection import before_projection

    tower = tuned = None
    if command.examples.text_column is not None:
        tower = TextEncoder.from_pretrained(command.encoder, command.revision, command.open_clip)
    if words is not None and command.start is not None and command.start.train_projection:
        pooled = prepare_data(command, before_projection(encoder), dataset, command.examples)
        prepared, training, chosen, tuned = train_with_projection(command, encoder, pooled, words, judge)
    else:
        prepared = prepare_data(command, encoder, dataset, command.examples, tower)
        training, chosen = train(command, prepared) if words is None else train_with_words(command, prepared, words)
    if tuned is None:
        show_kept_epoch(training, chosen)
    return prepared, training, chosen, tuned


def _with_device(command: TrainCommand, device: str) -> TrainCommand:
    tuning = command.tuning and replace(command.tuning, device=device)
    if tuning is not None:
        tuning.check_device()
    return replace(command, examples=replace(command.examples, device=device), tuning=tuning)


def _encoder(command: TrainCommand) -> Encoder:
    from clip_export.encoders.image import Encoder
    from clip_export.training.finetuning.distillation import whole_encoder
    from clip_export.training.finetuning.halves import check_blocks

    feature = command.feature or ("projected" if command.start else "pooled")
    encoder = Encoder.from_pretrained(command.encoder, command.revision, feature, command.open_clip, command.input_size)
    if command.tuning is not None:
        check_blocks(encoder, command.tuning.blocks)
        if command.tuning.distil:
            whole_encoder(encoder)
    return encoder


def _check_outputs(command: TrainCommand) -> None:
    """Find out before minutes of work what would spoil them."""
    from clip_export.extra import require
    from clip_export.heads.files import check_suffix
    from clip_toolkit.errors import OutputError
    from clip_toolkit.files.atomic import check_writable

    check_suffix(command.out)
    check_writable(command.out)
    if command.judging.report is not None:
        require("report", "matplotlib")
    if command.judging.tensorboard is not None:
        require("tensorboard", "tensorboard")
    _check_checkpoints(command)
    for folder in filter(None, (command.judging.report, command.judging.tensorboard)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be used as a folder ({error.strerror}). Name another.") from error


def _check_checkpoints(command: TrainCommand) -> None:
    """Refuse to write over what an interrupted training has left, which may be hours of work."""
    from clip_export.commands.train_finetuning import PART
    from clip_export.training.checkpoints import checkpoint_path
    from clip_toolkit.errors import OutputError

    for path in (checkpoint_path(command.out, part) for part in ("", PART)):
        if path.exists() and not command.resume:
            raise OutputError(
                f"{path}: is left from an interrupted training. Continue it with --resume, or remove it to start over."
            )


def _device(name: str) -> str:
    import torch

    from clip_toolkit.errors import DeviceError, first_line

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).item()
    except Exception as error:  # torch raises RuntimeError, AssertionError or others, by device
        raise DeviceError(f"device {name}: PyTorch cannot use it ({first_line(error)})") from error
    return name


def _explain(command: TrainCommand, image: Path) -> int:
    from clip_export.encoders.image import Encoder
    from clip_export.extra import require
    from clip_export.training.report.preprocessing_steps import draw_steps
    from clip_toolkit.errors import OutputError
    from clip_toolkit.files.atomic import check_writable

    require("report", "matplotlib")
    if command.out.suffix != ".png":
        raise OutputError(f"{command.out}: expected a file ending in .png")
    check_writable(command.out)
    feature = command.feature or "pooled"
    encoder = Encoder.from_pretrained(command.encoder, command.revision, feature, command.open_clip, command.input_size)
    draw_steps(encoder, image, command.out)
    show(f"wrote {command.out}")
    return 0


@as_command(TRAIN)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    from clip_export.commands.libraries import prepare_libraries
    from clip_export.commands.train_options import parse_args

    command = parse_args(argv)
    prepare_libraries()
    return run(command)


if __name__ == "__main__":
    sys.exit(main())
