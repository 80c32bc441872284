"""``clip-train --train-projection``: one more start for few images, which changes the encoder if it is chosen."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from clip_export.commands.train_finetuning import FineTuned, scores, with_features
from clip_export.commands.train_from_words import train_with_words
from clip_export.commands.train_options import TrainCommand
from clip_export.encoders.image import Encoder
from clip_export.heads.zero_shot import ZeroShot, words_head
from clip_export.progress import bar
from clip_export.training.epochs import Epoch
from clip_export.training.judging.decisions import Judge
from clip_export.training.loop import Training
from clip_export.training.options import TrainingOptions
from clip_export.training.preparation import Prepared
from clip_export.training.projection import EPOCHS, RATE, ProjectionAttempt, project, train_projection
from clip_toolkit.terminal import show


def train_with_projection(
    command: TrainCommand, encoder: Encoder, pooled: Prepared, words: ZeroShot, judge: Judge
) -> tuple[Prepared, Training, TrainingOptions, FineTuned | None]:
    """Try the trained projection beside the other starts; where validation images choose it, the encoder changes.

    Args:
        command: the options.
        encoder: of the projected feature.
        pooled: examples of the feature before the projection.
        words: the labels' directions.
        judge: the rule to compare by.

    Returns:
        The examples behind the projection as it was, the chosen training, how it was trained, and what became of the
        encoder; None if it is what it was.
    """
    assert encoder.projection is not None  # before_projection has seen to it
    tried = _try_projection(command, encoder.projection, pooled, words)
    frozen = _projected(pooled, encoder.projection)
    training, options = train_with_words(command, frozen, words, [tried.attempt])
    if training is not tried.attempt.training:
        return frozen, training, options, None
    tuned = _projected(pooled, tried.projection)
    name, before, after = scores(judge, frozen, replace(training, head=words_head(words)), tuned, training)
    encoder.projection.load_state_dict(tried.projection.state_dict())
    show(f"trained the visual projection, {EPOCHS} epochs: {name} {after}, with the words alone {before}")
    summary = {
        "encoder before fine-tuning": encoder.spec().id,
        "trained part": "visual projection",
        f"{name} with the words alone": before,
    }
    options = replace(options, optimizer="adam", learning_rate=RATE)  # for the head file
    return frozen, training, options, FineTuned(tuned, training, summary)


def _projected(prepared: Prepared, projection: nn.Linear) -> Prepared:
    sides = (prepared.train, prepared.validation, prepared.test)
    return with_features(prepared, [project(projection, side).features for side in sides if side is not None])


def _try_projection(
    command: TrainCommand, projection: nn.Linear, pooled: Prepared, words: ZeroShot
) -> ProjectionAttempt:
    shots = len(pooled.split.train) / len(words.directions)
    with bar("projection", EPOCHS) as advance:

        def report(epoch: Epoch) -> None:
            advance(1, f"loss {epoch.loss:#.3g}, validation {epoch.val_loss:#.3g}")

        return train_projection(
            words, projection, pooled.train, pooled.validation, command.training, report=report, shots=shots
        )
