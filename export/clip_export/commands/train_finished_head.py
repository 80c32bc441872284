"""The head of a training as it is saved: with its decisions, and a summary of how it came about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip_export.commands.train_options import TrainCommand
from clip_export.encoders.digest import tokenizer_digest
from clip_export.encoders.image import Encoder
from clip_export.heads.files import TrainedHead
from clip_export.heads.novelty import Novelty, fit_novelty
from clip_export.heads.outputs import unit_length
from clip_export.heads.references import EncoderReference
from clip_export.heads.zero_shot import TEMPLATES
from clip_export.training.fusion import Parts
from clip_export.training.judging.outcome import Judgement, brief_text
from clip_export.training.loop import Training
from clip_export.training.options import TrainingOptions
from clip_export.training.preparation import Prepared
from clip_toolkit.judging.figures import figure_text
from clip_toolkit.judging.rates import rates_text
from clip_toolkit.judging.scores import SCORES, share_text
from clip_toolkit.spec.tasks import REGRESSION


def finish_head(
    command: TrainCommand,
    prepared: Prepared,
    training: Training,
    options: TrainingOptions,
    encoder: Encoder,
    *,
    judgement: Judgement,
    alone: Parts | None = None,
) -> TrainedHead:
    """Return the head with temperature and thresholds from validation images, and what is worth knowing of it."""
    temperature, thresholds = judgement.decisions
    return TrainedHead(
        training.head,
        EncoderReference(
            _portable_id(command.encoder),
            encoder.revision,
            encoder.feature,
            text=prepared.texts is not None,
            tokenizer=None if prepared.texts is None else tokenizer_digest(encoder.checkpoint.source),
            open_clip_model=encoder.checkpoint.open_clip_model,
            licenses=encoder.checkpoint.licenses,
        ),
        prepared.dataset.labels,
        _summary(command, prepared, training, options)
        | _figures(prepared.dataset.task, judgement)
        | _text_summary(prepared, alone),
        prepared.reference(),
        prepared.dataset.task,
        temperature,
        thresholds,
        None if command.judging.novelty is None else _novelty(prepared, encoder, command.judging.novelty),
    )


def _novelty(prepared: Prepared, encoder: Encoder, share: float) -> Novelty:
    """Learn what the training images look like; of images with texts, the images alone."""
    learnt, validation = (unit_length(side.examples.features[:, : encoder.dim]).numpy() for side in prepared.sides[:2])
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


def _portable_id(encoder: str) -> str:
    """Return the name under which a later clip-export finds the encoder, from whatever folder it is called."""
    return str(Path(encoder).resolve()) if Path(encoder).exists() else encoder
