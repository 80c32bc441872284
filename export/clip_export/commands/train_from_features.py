"""``clip-train FEATURES``: a head from features that clip-scale has written, without images and without the encoder."""

from __future__ import annotations

from pathlib import Path

from clip_export.commands.train_finished_head import encoder_reference, finish_head, save_finished
from clip_export.commands.train_options import TrainCommand
from clip_export.commands.train_results import compare, show_kept_epoch, show_results
from clip_export.commands.train_stages import show_prepared, train
from clip_export.encoders.checkpoint import Checkpoint
from clip_export.encoders.image import input_size_of
from clip_export.features.table import FeatureTable
from clip_export.heads.references import EncoderReference
from clip_export.training.feature_preparation import prepare_features
from clip_export.training.judging.decisions import Judge
from clip_toolkit.errors import DatasetError
from clip_toolkit.spec.description import lay_out
from clip_toolkit.spec.licenses import license_rows
from clip_toolkit.stream.feature_table import FeatureSource
from clip_toolkit.terminal import show, write


def train_from_features(command: TrainCommand, data: Path) -> int:
    """Train and write the head; return the exit code.

    Raises:
        DatasetError: the features cannot be read or split, or are of another encoder than the command names.
        EncoderError: the encoder cannot be found.
    """
    options, judging = command.examples, command.judging
    table = FeatureTable.read(data, options.task)
    reference = _reference(command, table.source, data)
    labels = table.dataset.labels
    judge = Judge(table.dataset.task, labels, judging.operating_point, judging.positive, judging.calibrate)
    show(f"{len(table.rows)} rows of {len(table.files)} files, labels: {', '.join(labels)}; encoder {command.encoder}")
    write(*lay_out(license_rows(reference.licenses)))
    prepared = prepare_features(table, options, command.out.absolute().parent)
    show_prepared(prepared, len(table.rows))
    training, chosen = train(command, prepared)
    show_kept_epoch(training, chosen)
    judgement = compare(judge, prepared, training, None)
    head = finish_head(command, prepared, training, chosen, reference, judgement=judgement)
    save_finished(command, head)
    show_results(command, head, judgement, None)
    show(f"wrote {command.out}; clip-export --quantize and --expect need images, which it does not know of")
    return 0


def _reference(command: TrainCommand, source: FeatureSource, data: Path) -> EncoderReference:
    """Return the command's encoder, whose weights are not loaded, if it is the one that the features are made by."""
    checkpoint = Checkpoint.find(command.encoder, command.revision, command.open_clip)
    made = source.encoder
    revision, feature = checkpoint.commit, command.feature or made.feature
    if revision != made.revision:
        raise DatasetError(
            f"{data}: has features of {made.id} at {(made.revision or 'unknown')[:12]}, and --encoder "
            f"{command.encoder} is at {revision[:12]}. Name the encoder that they were computed by."
        )
    if feature != made.feature:
        raise DatasetError(f"{data}: has {made.feature} features. Leave out --feature {feature}, or write others.")
    size = input_size_of(checkpoint, source.preprocessing)
    return encoder_reference(command.encoder, checkpoint, revision, feature, input_size=size)
