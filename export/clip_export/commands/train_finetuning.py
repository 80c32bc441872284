"""The stage of ``clip-train`` that fine-tunes the encoder, and tells the user what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

from torch import Tensor

from clip_export.commands.train_hidden_states import Hidden, hidden_states
from clip_export.commands.train_options import TrainCommand
from clip_export.commands.train_stages import Report, watch
from clip_export.encoders.image import Encoder
from clip_export.training.checkpoints import Checkpoints, checkpoint_path, fingerprint
from clip_export.training.epochs import Examples, Inputs
from clip_export.training.finetuning.distillation import whole_encoder
from clip_export.training.finetuning.finetune import finetune
from clip_export.training.finetuning.halves import LowerHalf, UpperHalf, depth_read
from clip_export.training.finetuning.hidden_states import features_of
from clip_export.training.finetuning.options import FinetuningOptions
from clip_export.training.judging.decisions import Judge
from clip_export.training.loop import Training
from clip_export.training.options import TrainingOptions
from clip_export.training.preparation import Prepared
from clip_export.training.state import TrainingState
from clip_toolkit.judging.scores import SCORES, share_text
from clip_toolkit.terminal import say, show

PART = "encoder"
"""Of `checkpoint_path`."""


class FineTuned(NamedTuple):
    """What fine-tuning made of a training; the encoder has changed in place.

    Attributes:
        prepared: the examples with the features of the fine-tuned encoder.
        training: the head that learnt with it.
        summary: what the head file says of it.
        query: of a pooling that was learnt, in place of blocks.
    """

    prepared: Prepared
    training: Training
    summary: dict[str, Any]
    query: Tensor | None = None


def finetune_encoder(
    command: TrainCommand,
    encoder: Encoder,
    prepared: Prepared,
    *,
    frozen: Training,
    head_options: TrainingOptions,
    options: FinetuningOptions,
    judge: Judge,
) -> FineTuned | None:
    """Train the encoder's last blocks with the head; None if that does not help, and the encoder is what it was."""
    lower, upper = LowerHalf(encoder, options.blocks), UpperHalf(encoder, options.blocks)
    with hidden_states(command, encoder, prepared, options, lower) as hidden:
        learn = partial(
            finetune, upper, frozen.head, options=options, head_options=head_options, imitated=hidden.imitated
        )
        used = (head_options, options, *hidden.unlabelled)
        owner = fingerprint(prepared.train, prepared.validation, used, prepared.dataset.task)
        checkpoints = Checkpoints(checkpoint_path(command.out, PART), owner)
        training = train_upper(command, prepared, hidden.sides, learn, checkpoints, epochs=options.epochs)
        if not training.best.number:
            say("fine-tuning made nothing better on the validation images: the frozen encoder and its head are kept")
            return None
        batch_size, device = command.examples.batch_size, options.device
        features = [features_of(upper, side, batch_size, device) for side in hidden.sides]
    tuned = with_features(prepared, features)
    name, before, after = scores(judge, prepared, frozen, tuned, training)
    blocks = f"{options.blocks} of {depth_read(encoder)} blocks"
    show(
        f"fine-tuned {blocks}, epoch {training.best.number} of {options.epochs}: {name} {after}, with the frozen "
        f"encoder {before}"
    )
    if encoder.tokens is not None:
        say(f"the fine-tuned encoder fits {encoder.feature} alone: later blocks were not trained with it")
    summary = {
        "encoder before fine-tuning": encoder.spec().id,
        "unfrozen blocks": options.blocks,
        "encoder learning rate": options.learning_rate,
        f"{name} with the frozen encoder": before,
        **_distillation_summary(encoder, options, hidden),
    }
    return FineTuned(tuned, training, summary)


def train_upper(
    command: TrainCommand,
    prepared: Prepared,
    sides: Sequence[Inputs],
    learn: Callable[..., Training],
    checkpoints: Checkpoints,
    *,
    epochs: int,
    title: str = "fine-tuning",
) -> Training:
    """Train on the inputs of the training and the validation images, with a bar and checkpoints."""
    task = prepared.dataset.task
    targets = (prepared.train.targets, prepared.validation.targets)
    train, validation = (
        Examples(cast("Tensor", states), those) for states, those in zip(sides[:2], targets, strict=True)
    )

    def run(report: Report, state: TrainingState | None) -> Training:
        return learn(train, validation, report=report, task=task, resume=state, keep=checkpoints.keep)

    return watch(command, run, checkpoints, title=title, epochs=epochs, task=task)


def with_features(prepared: Prepared, features: list[Tensor]) -> Prepared:
    """Return the training, validation and test examples (if any) as another encoder sees them."""
    sides = (prepared.train, prepared.validation, prepared.test)
    seen = [side._replace(features=rows) for side, rows in zip(sides, features, strict=False) if side is not None]
    train, validation, *test = seen
    return replace(prepared, train=train, validation=validation, test=test[0] if test else None)


def scores(
    judge: Judge, prepared: Prepared, frozen: Training, tuned: Prepared, training: Training
) -> tuple[str, str, str]:
    """Return the name of the held-out score, and its value before and after, each at its own operating point."""
    old, new = (
        share_text(judge.score(used.head, sides.validation, sides.held_out.examples), judge.task)
        for used, sides in ((frozen, prepared), (training, tuned))
    )
    return f"{prepared.held_out.name} {SCORES[judge.task]}", old, new


def _distillation_summary(encoder: Encoder, options: FinetuningOptions, hidden: Hidden) -> dict[str, Any]:
    if hidden.imitated is None:
        return {}
    images, without = len(hidden.imitated.targets), len(hidden.unlabelled)
    return {
        "distilled from": f"{whole_encoder(encoder).feature} on {images} images and views, {without} without a label",
        "weight of distilling": options.distil,
    }
