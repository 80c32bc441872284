"""``clip-train --init zero-shot``: the labels' words as the start of a linear head."""

from __future__ import annotations

from collections.abc import Sequence

from clip_export.commands.train_options import StartOptions, TrainCommand
from clip_export.encoders.text import TextEncoder
from clip_export.heads.zero_shot import TEMPLATES, ZeroShot, check_words, zero_shot
from clip_export.progress import bar
from clip_export.training.epochs import Epoch
from clip_export.training.few_shot import PULLS, Attempt, train_from_words
from clip_export.training.loop import Training
from clip_export.training.options import TrainingOptions
from clip_export.training.preparation import Prepared
from clip_toolkit.data.dataset import Dataset
from clip_toolkit.errors import HeadError
from clip_toolkit.spec.tasks import MULTI_LABEL
from clip_toolkit.terminal import show


def start_words(command: TrainCommand, start: StartOptions, dataset: Dataset) -> ZeroShot:
    """Make a head of the labels with the encoder's text tower; underscores of folders' names are spaces.

    Raises:
        EncoderError: there is no text tower, or it cannot be loaded.
        HeadError: the labels or templates make no prompts, or several labels an image are asked of a softmax.
    """
    labels, templates = [label.replace("_", " ") for label in dataset.labels], start.templates or TEMPLATES
    check_words(labels, templates)
    words = zero_shot(
        TextEncoder.from_pretrained(command.encoder, command.revision, command.open_clip), labels, templates
    )
    if dataset.task == MULTI_LABEL and words.task != MULTI_LABEL:
        raise HeadError(
            f"--init zero-shot: {command.encoder} was trained to tell texts apart, not to accept or refuse each, so "
            "that its words are no start for multi-label. Use a SigLIP encoder, or leave out --init."
        )
    return words


def train_with_words(
    command: TrainCommand, prepared: Prepared, words: ZeroShot, further: Sequence[Attempt] = ()
) -> tuple[Training, TrainingOptions]:
    """Train from the words and from random weights, and say which start led to the lowest validation loss."""
    options = command.training
    pull = None if command.start is None else command.start.pull
    pulls = PULLS if pull is None else (pull,)
    with bar("training", options.epochs * (len(pulls) + 1)) as advance:

        def report(epoch: Epoch) -> None:
            advance(1, f"loss {epoch.loss:#.3g}, validation {epoch.val_loss:#.3g}")

        task = prepared.dataset.task
        tried = train_from_words(words, prepared.train, prepared.validation, options, report, task=task, pulls=pulls)
    tried = sorted([*tried, *further], key=lambda attempt: attempt.loss)
    show("validation loss by start: " + "; ".join(f"{training.start} {loss:#.3g}" for training, loss in tried))
    return tried[0].training, options
