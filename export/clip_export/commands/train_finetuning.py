"""The stage of ``clip-train`` that fine-tunes the encoder, and tells the user what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import Tensor

from clip_export.commands.train_options import TrainCommand
from clip_export.commands.train_stages import Report, cache_folder, watch
from clip_export.encoders.image import Encoder
from clip_export.features.images import row_key
from clip_export.progress import bar
from clip_export.training.checkpoints import Checkpoints, checkpoint_path, fingerprint
from clip_export.training.epochs import Examples
from clip_export.training.finetuning.finetune import finetune
from clip_export.training.finetuning.halves import LowerHalf, UpperHalf
from clip_export.training.finetuning.hidden_states import (
    HiddenCache,
    HiddenStates,
    check_room,
    features_of,
    hidden_cache,
    hidden_states,
)
from clip_export.training.finetuning.options import FinetuningOptions
from clip_export.training.judging.decisions import Judge
from clip_export.training.loop import Training
from clip_export.training.options import TrainingOptions
from clip_export.training.preparation import Prepared
from clip_export.training.state import TrainingState
from clip_toolkit.files.atomic import temporary_beside
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
    """

    prepared: Prepared
    training: Training
    summary: dict[str, Any]


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
    with _cache_folder(command) as folder:
        sides = _compute_hidden_sides(command, encoder, prepared, options, folder)
        learn = partial(finetune, encoder, frozen.head, options=options, head_options=head_options)
        owner = fingerprint(prepared.train, prepared.validation, (head_options, options), prepared.dataset.task)
        checkpoints = Checkpoints(checkpoint_path(command.out, PART), owner)
        training = _train(command, prepared, sides, learn, checkpoints, epochs=options.epochs)
        if not training.best.number:
            say("fine-tuning made nothing better on the validation images: the frozen encoder and its head are kept")
            return None
        upper = UpperHalf(encoder, options.blocks)
        features = [features_of(upper, side, command.examples.batch_size, options.device) for side in sides]
    tuned = _with_features(prepared, features)
    name, before, after = _scores(judge, prepared, frozen, tuned, training)
    show(
        f"fine-tuned {options.blocks} of {_depth(encoder)} blocks, epoch {training.best.number} of {options.epochs}: "
        f"{name} {after}, with the frozen encoder {before}"
    )
    summary = {
        "encoder before fine-tuning": encoder.spec().id,
        "unfrozen blocks": options.blocks,
        "encoder learning rate": options.learning_rate,
        f"{name} with the frozen encoder": before,
    }
    return FineTuned(tuned, training, summary)


@contextmanager
def _cache_folder(command: TrainCommand) -> Iterator[Path]:
    """Where hidden states are kept: with ``--no-cache`` only as long as they are needed."""
    kept = cache_folder(command.features)
    if kept is not None:
        yield kept
        return
    with temporary_beside(command.out, is_folder=True) as folder:
        yield folder


def _compute_hidden_sides(
    command: TrainCommand, encoder: Encoder, prepared: Prepared, options: FinetuningOptions, folder: Path
) -> list[HiddenStates]:
    """Hidden states of the training images with their views, the validation images, and the test images if any."""
    lower = LowerHalf(encoder, options.blocks)
    cache = hidden_cache(folder, lower)
    split = prepared.split
    check_room(cache, _row_keys(prepared, command.examples.views))

    def states(indices: list[int], view: int = 0) -> HiddenStates:
        files = [prepared.dataset.files[index] for index in indices]
        with bar(f"hidden states, view {view}" if view else "hidden states", len(files)) as advance:
            return hidden_states(
                lower,
                files,
                cache,
                batch_size=command.examples.batch_size,
                device=options.device,
                progress=advance,
                view=view,
            )

    try:
        train = states(split.train)
        for view in range(1, command.examples.views + 1):
            train += states(split.train, view)
        sides = [train, *(states(indices) for indices in (split.validation, split.test) if indices)]
    except KeyboardInterrupt:
        kept = (
            "with --no-cache no hidden states are kept"
            if command.features.cache is False
            else "computed hidden states are kept"
        )
        say(f"{kept}: continue with --resume")
        raise
    say(*cache.notes)
    _tell_hidden(sides, encoder, options, cache)
    return sides


def _row_keys(prepared: Prepared, views: int) -> Iterator[bytes]:
    """Of all images and views that hidden states are needed of."""
    contents = [bytes.fromhex(content) for content in prepared.reading.contents]
    train, validation, test = prepared.split
    for index in (*train, *validation, *test):
        yield row_key(contents[index])
    for view in range(1, views + 1):
        yield from (row_key(contents[index], view) for index in train)


def _tell_hidden(sides: list[HiddenStates], encoder: Encoder, options: FinetuningOptions, cache: HiddenCache) -> None:
    images, computed = sum(map(len, sides)), sum(side.computed for side in sides)
    show(
        f"hidden states below the last {options.blocks} of {_depth(encoder)} blocks: {computed} "
        f"computed, {images - computed} from the cache; {images * cache.row_bytes / 2**20:.0f} MiB"
    )


def _train(
    command: TrainCommand,
    prepared: Prepared,
    sides: list[HiddenStates],
    learn: Callable[..., Training],
    checkpoints: Checkpoints,
    *,
    epochs: int,
) -> Training:
    task = prepared.dataset.task
    targets = (prepared.train.targets, prepared.validation.targets)
    train, validation = (
        Examples(cast("Tensor", states), those) for states, those in zip(sides[:2], targets, strict=True)
    )

    def run(report: Report, state: TrainingState | None) -> Training:
        return learn(train, validation, report=report, task=task, resume=state, keep=checkpoints.keep)

    return watch(command, run, checkpoints, title="fine-tuning", epochs=epochs, task=task)


def _with_features(prepared: Prepared, features: list[Tensor]) -> Prepared:
    """Return the training, validation and test examples (if any) as another encoder sees them."""
    sides = (prepared.train, prepared.validation, prepared.test)
    seen = [side._replace(features=rows) for side, rows in zip(sides, features, strict=False) if side is not None]
    train, validation, *test = seen
    return replace(prepared, train=train, validation=validation, test=test[0] if test else None)


def _scores(
    judge: Judge, prepared: Prepared, frozen: Training, tuned: Prepared, training: Training
) -> tuple[str, str, str]:
    """Return the name of the held-out score, and its value before and after, each at its own operating point."""
    old, new = (
        share_text(judge.score(used.head, sides.validation, sides.held_out.examples), judge.task)
        for used, sides in ((frozen, prepared), (training, tuned))
    )
    return f"{prepared.held_out.name} {SCORES[judge.task]}", old, new


def _depth(encoder: Encoder) -> int:
    return len(encoder.tower.encoder.layers)
