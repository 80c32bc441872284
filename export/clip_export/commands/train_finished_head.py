"""The head of a training as it is saved: with its decisions, and a summary of how it came about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from clip_export.commands.train_finetuning import PART, FineTuned
from clip_export.commands.train_options import TrainCommand
from clip_export.encoders.checkpoint import Checkpoint
from clip_export.encoders.digest import tokenizer_digest
from clip_export.encoders.image import Encoder
from clip_export.heads.files import TrainedHead, save_head
from clip_export.heads.novelty import Novelty, fit_novelty
from clip_export.heads.outputs import unit_length
from clip_export.heads.references import EncoderReference
from clip_export.heads.tuned_encoder import earlier_encoders, save_with_encoder
from clip_export.heads.zero_shot import TEMPLATES
from clip_export.training.checkpoints import checkpoint_path
from clip_export.training.fusion import Parts
from clip_export.training.judging.outcome import Judgement, brief_text
from clip_export.training.loop import Training
from clip_export.training.options import TrainingOptions
from clip_export.training.preparation import Prepared
from clip_toolkit.judging.figures import figure_text
from clip_toolkit.judging.rates import rates_text
from clip_toolkit.judging.scores import SCORES, share_text
from clip_toolkit.spec.tasks import REGRESSION
from clip_toolkit.terminal import say


def finish_head(
    command: TrainCommand,
    prepared: Prepared,
    training: Training,
    options: TrainingOptions,
    reference: EncoderReference,
    *,
    judgement: Judgement,
    alone: Parts | None = None,
) -> TrainedHead:
    """Return the head with temperature and thresholds from validation images, and what is worth knowing of it."""
    temperature, thresholds = judgement.decisions
    return TrainedHead(
        training.head,
        reference,
        prepared.dataset.labels,
        _summary(command, prepared, training, options)
        | _figures(prepared.dataset.task, judgement)
        | _text_summary(prepared, alone),
        prepared.reference(),
        prepared.dataset.task,
        temperature,
        thresholds,
        None if command.judging.novelty is None else _novelty(prepared, command.judging.novelty),
    )


def encoder_reference(
    encoder: str,
    checkpoint: Checkpoint,
    revision: str | None,
    feature: str,
    *,
    text: bool = False,
    input_size: int | None = None,
) -> EncoderReference:
    """Return what a head file says of its encoder, which ``encoder`` names on the command line.

    Args:
        encoder: hub id, folder or file.
        checkpoint: what it names.
        revision: of the encoder.
        feature: that the head reads.
        text: whether it reads that of a text, too.
        input_size: as in `clip_export.encoders.image.Encoder`.
    """
    portable = str(Path(encoder).resolve()) if Path(encoder).exists() else encoder  # found from any folder
    tokenizer = tokenizer_digest(checkpoint.source) if text else None
    return EncoderReference(
        portable,
        revision,
        feature,
        text=text,
        tokenizer=tokenizer,
        open_clip_model=checkpoint.open_clip_model,
        licenses=checkpoint.licenses,
        input_size=input_size,
    )


def save_finished(
    command: TrainCommand, head: TrainedHead, encoder: Encoder | None = None, tuned: FineTuned | None = None
) -> TrainedHead:
    """Write the head, with its encoder if that was fine-tuned, remove the checkpoints, and name what is left over."""
    if tuned is not None:
        head = replace(head, training=head.training | tuned.summary, pooling=tuned.query)
    if tuned is None or tuned.query is not None or encoder is None:
        save_head(head, command.out)
    else:
        head = save_with_encoder(head, encoder, command.out)
    for part in ("", PART):
        checkpoint_path(command.out, part).unlink(missing_ok=True)
    for folder in earlier_encoders(command.out, head.encoder):
        say(f"{folder}: belongs to an earlier {command.out.name}. Delete it unless a copy of that is in use.")
    return head


def _novelty(prepared: Prepared, share: float) -> Novelty:
    """Learn what the training images look like; of images with texts, the images alone."""
    width = prepared.train.features.shape[1] - (0 if prepared.texts is None else prepared.texts.values.shape[1])
    learnt, validation = (unit_length(side.examples.features[:, :width]).numpy() for side in prepared.sides[:2])
    targets = prepared.sides[0].examples.targets.numpy()
    return fit_novelty(learnt, targets, prepared.dataset.task, validation, share)


def _summary(command: TrainCommand, prepared: Prepared, training: Training, options: TrainingOptions) -> dict[str, Any]:
    test = {"test": len(prepared.split.test)} if prepared.split.test else {}
    fits = not command.judging.calibrate or prepared.dataset.task == REGRESSION or training.best.val_score < 1
    temperature = {} if fits else {"temperature": "1: no mistake on the validation images to fit it to"}
    start = {"start": training.start, "templates": list(command.start.templates or TEMPLATES)} if command.start else {}
    return {
        "images": len(prepared.reading.kept),
        "skipped": len(prepared.reading.errors),
        "train": len(prepared.split.train),
        "validation": len(prepared.split.validation),
        **test,
        **start,
        "views": command.examples.views,
        "epoch": f"{training.best.number} of {training.history[-1].number}",
        "optimizer": options.optimizer,
        "learning rate": options.learning_rate,
        "seed": command.examples.seed,
        "operating point": str(command.judging.operating_point),
        **temperature,
        **({} if command.judging.novelty is None else {"novelty": command.judging.novelty}),
    }


def _figures(task: str, judgement: Judgement) -> dict[str, str]:
    """Put the figures into words, as they were shown: a reader of the file need not know the training."""
    own, score = judgement.held_out, SCORES[task]
    figures = {f"train {score}": share_text(judgement.train_score, task)}
    for outcome in (judgement.validation, own):
        figures[f"{outcome.side} {score}"] = f"{figure_text(outcome.score, task)} on {outcome.images} images"
    figures |= {f"{own.side}, {rates.label}": rates_text(rates) for rates in own.rates}
    return figures | {f"{own.side}, {name}": brief_text(other, task) for name, other in judgement.others.items()}


def _text_summary(prepared: Prepared, alone: Parts | None) -> dict[str, Any]:
    if prepared.texts is None or alone is None:
        return {}
    task = prepared.dataset.task
    score = f"{prepared.held_out.name} {SCORES[task]}"
    figures = {f"{score}, image alone": alone.image, f"{score}, text alone": alone.text, f"{score}, both": alone.both}
    texts = {"different texts": prepared.texts.different, "texts cut": prepared.texts.cut}
    return texts | {name: share_text(value, task) for name, value in figures.items()}
